"""CPU seconds of each step to an integer .tflite; `tflite.py` starts it as a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from edgeship.calibration.ranges import solve_ranges
from edgeship.calibration.samples import SampleSet, open_samples, select_samples
from edgeship.digests import file_sha256
from edgeship.exporters.protocol import Source
from edgeship.exporters.registry import load_exporter
from edgeship.pipeline.observation import observe_lowered
from edgeship.pipeline.plan import PlannedArtifact, make_plan
from edgeship.project import Project
from edgeship.project_file import read_project
from edgeship.source.imports import project_imports
from edgeship.source.model import load_model
from edgeship.story import ignore_progress

if TYPE_CHECKING:
    from edgeship.calibration.observe import Statistics
    from edgeship.exporters.protocol import Lowered

VENDORS: Final = ("torch", "litert_torch", "ai_edge_quantizer", "ai_edge_litert.interpreter")
"""Imported before anything is measured, and told apart."""
STEPS: Final = ("imports", "lower", "observe", "emit")
PROBES: Final = 4

_T = TypeVar("_T")


class Stopwatch:
    """CPU time of this process, all threads, by step."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    def measure(self, step: str, work: Callable[[], _T]) -> _T:
        """Do the work; what it took is under the step's name."""
        start = time.process_time()
        result = work()
        self.cpu_s[step] = time.process_time() - start
        return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("project", type=Path)
    parser.add_argument("samples", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        cpu_s = run_steps(read_project(arguments.project), arguments.samples, Path(name))
    json.dump(cpu_s, sys.stdout)
    return 0


def run_steps(project: Project, count: int, directory: Path) -> dict[str, float]:
    """CPU seconds by step, of the project's one int8 artifact."""
    watch = Stopwatch()
    watch.measure("imports", lambda: [import_module(name) for name in VENDORS])
    item = integer_item(make_plan(project).artifacts)
    exporter = load_exporter(item.format)
    assert project.calibration is not None  # the rig's project has it
    inputs = project.model.input_specs()
    samples = open_samples(project.calibration.data, inputs, digest=file_sha256)
    chosen = select_samples(samples.samples, count)
    with project_imports(project.directory):
        model = load_model(project.model)
    probes = [samples.load(index).inputs for index in chosen[:PROBES]]
    source = Source(load=lambda: model, read_probes=lambda: probes)
    lowered = watch.measure("lower", lambda: exporter.lower(source, directory))
    statistics = watch.measure("observe", lambda: observed(lowered, project, samples, chosen))
    ranges = solve_ranges(statistics, item.ranges)
    emitted = directory / "emitted"
    emitted.mkdir()
    watch.measure("emit", lambda: exporter.emit(lowered, ranges, item.recipe, item.target, emitted))
    return watch.cpu_s


def integer_item(artifacts: Sequence[PlannedArtifact]) -> PlannedArtifact:
    """The int8 one of a plan."""
    return next(item for item in artifacts if item.recipe.precision == "int8")


def observed(
    lowered: Lowered, project: Project, samples: SampleSet, chosen: Sequence[int]
) -> Statistics:
    """Decoding and preprocessing of the samples included."""
    return observe_lowered(lowered, project.model.input_specs(), samples, chosen, ignore_progress)


if __name__ == "__main__":
    sys.exit(main())
