"""One calibration pass in a process of its own; `calibration.py` starts it and reads its JSON."""

from __future__ import annotations

import argparse
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import onnxruntime.quantization as ort_quantization
from onnxruntime.quantization import registry

from edgeship.calibration.observe import observe
from edgeship.calibration.preprocess import input_from_pixels, pixels_from_image
from edgeship.calibration.ranges import solve_ranges
from edgeship.calibration.samples import list_images, open_samples, select_samples
from edgeship.contract import TensorSpec
from edgeship.digests import file_sha256
from edgeship.exporters.activations import observed_tensors
from edgeship.project import Project, RangePolicy
from edgeship.project_file import read_project
from edgeship.runtimes.ort import OrtRuntime
from edgeship.vocabulary import RangeMethod

PEERS: Final = {"ort-minmax": "MinMax", "ort-entropy": "Entropy", "ort-percentile": "Percentile"}
OURS: Final = "edgeship"
_STATUS: Final = Path("/proc/self/status")
_RESET: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"
"""Sets the peak back to the present RSS (proc_pid_clear_refs(5))."""

Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a pass took, counted from the end of the imports."""

    cpu_s: float
    wall_s: float
    growth_mb: float


class Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]  # the vendor has no types
    """The images of a folder, one at a time, by edgeship's own preprocessing."""

    def __init__(self, folder: Path, spec: TensorSpec) -> None:
        assert spec.preprocess is not None  # the rig's project has it
        preprocess = spec.preprocess
        images, _ = list_images(folder)
        pixels = (pixels_from_image(image, preprocess) for image in images)
        self._inputs = ({spec.name: input_from_pixels(item, spec)} for item in pixels)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample's inputs; None at the end."""
        return next(self._inputs, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("method", choices=[OURS, *PEERS])
    parser.add_argument("graph", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("samples", type=int)
    arguments = parser.parse_args()
    project = read_project(arguments.project)
    if arguments.method == OURS:
        cost, ranges = measure(lambda: observe_ours(arguments.graph, project, arguments.samples))
    else:
        name = PEERS[arguments.method]
        cost, ranges = measure(lambda: calibrate_peer(name, arguments.graph, project))
    json.dump({**asdict(cost), "ranges": ranges}, sys.stdout)
    return 0


def measure(work: Callable[[], Ranges]) -> tuple[Cost, Ranges]:
    """Do the work; CPU and wall seconds, and the peak RSS above the RSS before it."""
    with suppress(OSError):  # where it is not permitted, the imports' own peak may hide a growth
        _RESET.write_text(_RESET_PEAK)
    before = status_kb("VmRSS")
    cpu, wall = cpu_seconds(), time.perf_counter()
    with redirect_stdout(io.StringIO()):  # the calibrators tell their steps there
        ranges = work()
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    growth_mb = (status_kb("VmHWM") - before) * 1024 / 1e6
    return Cost(cpu_s=cpu, wall_s=wall, growth_mb=growth_mb), ranges


def cpu_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def status_kb(key: str) -> int:
    """A line of /proc/self/status, in KiB (which it calls kB)."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def observe_ours(graph: Path, project: Project, count: int) -> Ranges:
    """Samples in digest order through the Graph, and both policies from the one table.

    Beyond the images of the calibration folder come those of the evaluation folder, over and over.
    """
    statistics_of = observed_tensors(onnx.load(graph))
    with OrtRuntime().observe(graph, statistics_of) as session:
        statistics = observe(feed(project, count), session.run)
    solve_ranges(statistics, RangePolicy(method=RangeMethod.PERCENTILE))
    ranges = solve_ranges(statistics, RangePolicy(method=RangeMethod.MIN_MAX))
    return {name: (item.low, item.high) for name, item in ranges.by_name.items()}


def feed(project: Project, count: int) -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
    """Name and inputs of `count` samples."""
    assert project.calibration is not None  # the rig's project has both
    assert project.evaluation is not None
    specs = [section.spec() for section in project.model.inputs]
    sets = [open_samples(project.calibration.data, specs, digest=file_sha256)]
    if count > len(sets[0].samples):
        sets.append(open_samples(project.evaluation.data, specs, digest=file_sha256))
    order = [
        (samples, index)
        for samples in sets
        for index in select_samples(samples.samples, len(samples.samples))
    ]
    for number, (samples, index) in enumerate(islice(cycle(order), count)):
        yield f"{number} {samples.samples[index].name}", samples.load(index).inputs


def calibrate_peer(name: str, graph: Path, project: Project) -> Ranges:
    """ONNX Runtime's calibrator as quantize_static runs it by default, but on one thread."""
    assert project.calibration is not None  # the rig's project has it
    limit_threads()
    method = ort_quantization.CalibrationMethod[name]
    reader = Reader(project.calibration.data, project.model.inputs[0].spec())
    with tempfile.TemporaryDirectory() as directory:
        calibrator = ort_quantization.calibrate.create_calibrator(
            graph,
            [*{*registry.QLinearOpsRegistry, *registry.QDQRegistry}],
            augmented_model_path=str(Path(directory, "augmented.onnx")),
            calibrate_method=method,
        )
        calibrator.collect_data(reader)
        found = calibrator.compute_data()
    return {key: ends(item.range_value) for key, item in found.items()}


def ends(pair: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    return float(np.asarray(pair[0]).min()), float(np.asarray(pair[1]).max())


def limit_threads() -> None:
    """The calibrators make their session options themselves: give them some with one thread."""
    options_type = onnxruntime.SessionOptions

    def one_thread() -> Any:  # noqa: ANN401 - the vendor has no types
        options = options_type()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        return options

    onnxruntime.SessionOptions = one_thread


if __name__ == "__main__":
    sys.exit(main())
