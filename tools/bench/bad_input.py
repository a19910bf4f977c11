"""What ONNX Runtime's quantize_static does with bad representative data: ResNet-20, CIFAR-10.

Every other option is the vendor's default, which is per-tensor int8 and min-max.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime.quantization as ort_quantization
from onnx import numpy_helper

from edgeship.calibration.samples import SampleSet, open_samples, select_samples
from edgeship.contract import Preprocess
from edgeship.digests import file_sha256
from edgeship.project import Project
from edgeship.project_file import read_project
from edgeship.runtimes.ort import OrtRuntime
from edgeship.source.graph import graph_from_model
from edgeship.source.imports import project_imports
from edgeship.source.model import load_model
from edgeship.tools.bench.rig import (
    describe_run,
    make_parser,
    make_project,
    positive,
    report,
    run_script,
    table,
)

INPUT: Final = "image"
PREPROCESS: Final = Preprocess(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""As in the rig's project."""
_PACKAGES: Final = ("onnxruntime", "onnx", "torch", "numpy")

Samples = list[dict[str, np.ndarray]]


class Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]  # the vendor has no types
    """Samples in memory."""

    def __init__(self, samples: Samples) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample's inputs; None at the end."""
        return next(self._samples, None)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        directory = Path(name)
        project = read_project(make_project(directory, arguments.shared, ["raspberry-pi-4"]))
        with project_imports(directory):
            graph = graph_from_model(load_model(project.model), directory / "float.onnx").file
        good = calibration_inputs(project, arguments.samples)
        test = evaluation_set(project)
        rows = [("float", accuracy(graph, test))]
        rows += [
            (case, outcome(graph, samples, directory / "int8.onnx", test))
            for case, samples in bad_samples(good).items()
        ]
        broken = with_nan_weight(graph, directory / "nan.onnx")
        rows.append(("a NaN weight", outcome(broken, good, directory / "int8.onnx", test)))
    value = {"samples": arguments.samples, "outcomes": dict(rows)}
    report(run, table([("input", "outcome"), *rows]), [], value, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--samples", type=positive, default=200, metavar="N", help="calibration images"
    )
    return parser.parse_args(argv)


def calibration_inputs(project: Project, count: int) -> Samples:
    """Preprocessed images of the calibration folder, in digest order."""
    assert project.calibration is not None  # the rig's project has it
    samples = open_samples(
        project.calibration.data, project.model.input_specs(), digest=file_sha256
    )
    return [samples.load(index).inputs for index in select_samples(samples.samples, count)]


def evaluation_set(project: Project) -> SampleSet:
    assert project.evaluation is not None  # the rig's project has it
    return open_samples(project.evaluation.data, project.model.input_specs(), digest=file_sha256)


def bad_samples(good: Samples) -> dict[str, Samples]:
    """The same samples with one mistake each, by what it is called in docs/bad-input.md."""
    mean = np.array(PREPROCESS.mean, np.float32).reshape(3, 1, 1)
    std = np.array(PREPROCESS.std, np.float32).reshape(3, 1, 1)

    def every(change: Callable[[np.ndarray], np.ndarray]) -> Samples:
        return [{INPUT: change(sample[INPUT])} for sample in good]

    def pixels(values: np.ndarray) -> np.ndarray:
        return values * std + mean

    def with_pixel(value: float) -> Samples:
        spoilt = every(np.copy)
        spoilt[3][INPUT][0, 1, 5, 5] = value
        return spoilt

    return {
        "good": good,
        "one NaN pixel": with_pixel(np.nan),
        "one infinite pixel": with_pixel(np.inf),
        "all zero": every(np.zeros_like),
        "black images": every(lambda x: (np.zeros_like(x) - mean) / std),
        "0..255, not normalised": every(lambda x: pixels(x) * 255),
        "normalised twice": every(lambda x: (x - mean) / std),
        "0..1, mean and std not applied": every(pixels),
        "divided by 255 twice": every(lambda x: (pixels(x) / 255 - mean) / std),
        "NHWC": every(lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1))),
        "float64": every(lambda x: x.astype(np.float64)),
        "another name": [{"input": sample[INPUT]} for sample in good],
        "one sample": good[:1],
    }


def with_nan_weight(graph: Path, file: Path) -> Path:
    """The graph with a NaN in its largest weight."""
    proto = onnx.load(graph)
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(weight).copy()
    values.reshape(-1)[7] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(proto, file)
    return file


def outcome(graph: Path, samples: Samples, file: Path, test: SampleSet) -> str:
    """Top-1 of what quantize_static made, or the error that it raised."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            ort_quantization.quantize_static(graph, file, Reader(samples))
    except Exception as error:  # what the vendor raises is what is measured
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {' '.join(lines)[:80]}"
    return f"no word; {accuracy(file, test)}"


def accuracy(file: Path, test: SampleSet) -> str:
    session = OrtRuntime().open(file)
    hits = sum(is_hit(session.run(inputs), label) for inputs, label in labelled(test))
    return f"top-1 {100 * hits / len(test.samples):.1f} %"


def labelled(test: SampleSet) -> Iterator[tuple[Mapping[str, np.ndarray], int | None]]:
    for index, sample in enumerate(test.samples):
        yield test.load(index).inputs, sample.label


def is_hit(outputs: Mapping[str, np.ndarray], label: int | None) -> bool:
    return int(next(iter(outputs.values())).argmax()) == label


if __name__ == "__main__":
    sys.exit(run_script(main))
