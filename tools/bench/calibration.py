"""Calibration against ONNX Runtime's calibrators: CPU seconds and memory for the same images."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgeship.calibration.samples import list_images
from edgeship.project_file import read_project
from edgeship.tools.bench.rig import (
    CannotMeasure,
    Goal,
    Spread,
    describe_run,
    make_parser,
    make_project,
    positive,
    ratio,
    report,
    run_script,
    spread,
    table,
)

OURS: Final = "edgeship"
PEERS: Final = ("ort-minmax", "ort-entropy", "ort-percentile")
HISTOGRAM_PEERS: Final = PEERS[1:]
CALIBRATION_IMAGES: Final = 1000
FEW: Final = 500
MANY: Final = 5000
CPU_GOAL: Final = 0.5
GROWTH_GOAL: Final = 0.1
FLAT_GOAL: Final = 0.15
_PACKAGES: Final = ("onnxruntime", "onnx", "numpy", "pillow")
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One way to calibrate, on so many samples."""

    method: str
    samples: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.method} {self.samples}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A pass over all rounds."""

    cpu_s: Spread
    wall_s: Spread
    growth_mb: Spread


OUR_PASS: Final = Pass(method=OURS, samples=CALIBRATION_IMAGES)
FEW_PASS: Final = Pass(method=OURS, samples=FEW)
MANY_PASS: Final = Pass(method=OURS, samples=MANY)
PEER_PASSES: Final = tuple(Pass(method=name, samples=CALIBRATION_IMAGES) for name in PEERS)
PASSES: Final = (OUR_PASS, *PEER_PASSES, FEW_PASS, MANY_PASS)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        project = make_project(Path(name), arguments.shared, ["linux-x86-64"])
        require_images(project.parent / "calib")
        graph = make_graph(project)
        rounds = [
            {item: run_pass(item, graph, project) for item in PASSES}
            for _ in range(arguments.rounds)
        ]
    measured = {item: measured_over([done[item] for done in rounds]) for item in PASSES}
    difference = largest_difference(
        rounds[0][OUR_PASS]["ranges"], rounds[0][PEER_PASSES[0]]["ranges"]
    )
    lines = [
        f"median (min..max) of {arguments.rounds} rounds, one thread, each pass in its own process",
        *table_lines(measured),
        "",
        f"min-max ranges differ from {PEERS[0]}'s by at most {difference:.1e} of their width",
    ]
    value = {
        "rounds": arguments.rounds,
        "passes": [{**asdict(item), **asdict(measured[item])} for item in PASSES],
        "largest_range_difference": difference,
    }
    report(run, lines, goals(measured), value, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="times that each pass is measured"
    )
    return parser.parse_args(argv)


def require_images(folder: Path) -> None:
    """The peers take in a whole folder: it must hold as many images as are observed here.

    Raises:
        CannotMeasure: It holds more or fewer.
    """
    found = len(list_images(folder)[0])
    if found != CALIBRATION_IMAGES:
        message = f"{folder.resolve()} holds {found} images: give it {CALIBRATION_IMAGES}"
        raise CannotMeasure(message)


def make_graph(project: Path) -> Path:
    """The Graph of the project's model, which every pass starts from."""
    from edgeship.source.graph import graph_from_model
    from edgeship.source.imports import project_imports
    from edgeship.source.model import load_model

    with project_imports(project.parent):
        model = load_model(read_project(project).model)
        return graph_from_model(model, project.with_name("graph.onnx")).file


def run_pass(item: Pass, graph: Path, project: Path) -> Mapping[str, Any]:
    script = Path(__file__).with_name("calibration_pass.py")
    done = subprocess.run(
        [sys.executable, str(script), item.method, str(graph), str(project), str(item.samples)],
        stdout=subprocess.PIPE,
        env={**os.environ, **_ONE_THREAD},
        check=False,
    )
    if done.returncode:
        message = f"the pass {item.name} exits {done.returncode}: see above"
        raise CannotMeasure(message)
    result: Mapping[str, Any] = json.loads(done.stdout)
    return result


def measured_over(results: Sequence[Mapping[str, Any]]) -> Measured:
    return Measured(
        cpu_s=spread(result["cpu_s"] for result in results),
        wall_s=spread(result["wall_s"] for result in results),
        growth_mb=spread(result["growth_mb"] for result in results),
    )


def largest_difference(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]
) -> float:
    """Of the ends of the ranges of tensors that both observed, relative to the range's width."""
    both = ours.keys() & theirs.keys()
    if not both:
        message = "the two sides observed no tensor in common"
        raise CannotMeasure(message)
    return max(
        ratio(
            max(abs(a - b) for a, b in zip(ours[name], theirs[name], strict=True)),
            theirs[name][1] - theirs[name][0],
        )
        for name in both
    )


def goals(measured: Mapping[Pass, Measured]) -> list[Goal]:
    ours = measured[OUR_PASS]
    found = []
    for item in PEER_PASSES:
        if item.method not in HISTOGRAM_PEERS:
            continue
        cpu = ratio(ours.cpu_s.median, measured[item].cpu_s.median)
        growth = ratio(ours.growth_mb.median, measured[item].growth_mb.median)
        found += [
            Goal(
                text=f"CPU is {cpu:.2f} of {item.method}'s (goal <= {CPU_GOAL})",
                is_met=cpu <= CPU_GOAL,
            ),
            Goal(
                text=f"peak growth is {growth:.3f} of {item.method}'s (goal <= {GROWTH_GOAL})",
                is_met=growth <= GROWTH_GOAL,
            ),
        ]
    few, many = measured[FEW_PASS].growth_mb.median, measured[MANY_PASS].growth_mb.median
    change = ratio(many, few) - 1
    text = f"peak growth at {MANY} is {100 * change:+.1f} % of that at {FEW} samples"
    goal = f"(goal within {100 * FLAT_GOAL:g} %)"
    return [*found, Goal(text=f"{text} {goal}", is_met=abs(change) <= FLAT_GOAL)]


def table_lines(measured: Mapping[Pass, Measured]) -> list[str]:
    ours = measured[OUR_PASS]
    rows = [("pass", "CPU s", "wall s", "peak growth MB", "CPU ours/its", "growth ours/its")]
    for item, cost in measured.items():
        ratios = ("", "")
        if item in PEER_PASSES:
            ratios = (
                f"{ratio(ours.cpu_s.median, cost.cpu_s.median):.2f}",
                f"{ratio(ours.growth_mb.median, cost.growth_mb.median):.3f}",
            )
        costs = (cost.cpu_s.text(2), cost.wall_s.text(2), cost.growth_mb.text(1))
        rows.append((item.name, *costs, *ratios))
    return table(rows)


if __name__ == "__main__":
    sys.exit(run_script(main))
