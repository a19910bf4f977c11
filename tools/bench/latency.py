"""Latency of int8 against fp32 files in ONNX Runtime: ResNet-20, one thread, batch 1."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.calibration.samples import open_samples
from edgeship.digests import file_sha256
from edgeship.project_file import read_project
from edgeship.runtimes.ort import OrtRuntime, OrtSession
from edgeship.tools.bench.rig import (
    CannotMeasure,
    Goal,
    Spread,
    build_project,
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

if TYPE_CHECKING:
    import numpy as np

TARGETS: Final = ("raspberry-pi-4", "linux-x86-64")
BLOCK: Final = 50
"""Runs of one file before it is the other one's turn: what disturbs the host disturbs both."""
WARM_UP: Final = 200
SPEED_GOAL: Final = 1.7
DROP_GOAL: Final = 0.010
AGREEMENT_GOAL: Final = 0.96
_PACKAGES: Final = ("onnxruntime", "onnx", "torch", "numpy")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Milliseconds per run of a target's two files, and how many times as fast int8 is."""

    target: str
    fp32_ms: Spread
    int8_ms: Spread

    @property
    def ratio_of_medians(self) -> float:
        """Median of fp32 over median of int8."""
        return ratio(self.fp32_ms.median, self.int8_ms.median)

    @property
    def ratio_of_minima(self) -> float:
        """Minimum of fp32 over minimum of int8."""
        return ratio(self.fp32_ms.low, self.int8_ms.low)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        project = make_project(Path(name), arguments.shared, TARGETS)
        artifacts = build_project(project)
        inputs = first_inputs(project)
        comparisons = [compare(target, artifacts, inputs, arguments.runs) for target in TARGETS]
    goals = [goal for item in comparisons for goal in speed_goals(item)]
    goals += [goal for item in artifacts for goal in accuracy_goals(item)]
    value = {
        "runs": arguments.runs,
        "latency": [
            {
                **asdict(item),
                "ratio_of_medians": item.ratio_of_medians,
                "ratio_of_minima": item.ratio_of_minima,
            }
            for item in comparisons
        ],
        "accuracy": [
            {"artifact": name_of(item), **item["evidence"][0]["metrics"]} for item in artifacts
        ],
    }
    lines = [
        f"{arguments.runs} runs of each file on this host's CPU, which is not the target's",
        *latency_lines(comparisons),
        "",
        *accuracy_lines(artifacts),
    ]
    report(run, lines, goals, value, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--runs", type=positive, default=3000, metavar="N", help="timed runs of each file"
    )
    return parser.parse_args(argv)


def first_inputs(project: Path) -> Mapping[str, np.ndarray]:
    """The first evaluation image, preprocessed."""
    read = read_project(project)
    assert read.evaluation is not None  # the rig's project has it
    specs = [section.spec() for section in read.model.inputs]
    return open_samples(read.evaluation.data, specs, digest=file_sha256).load(0).inputs


def compare(
    target: str,
    artifacts: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, np.ndarray],
    runs: int,
) -> Comparison:
    """Time the target's two files in turns, in one process, one thread each."""
    sessions = [
        OrtRuntime().open(model_file(artifacts, target, precision), threads=1)
        for precision in ("fp32", "int8")
    ]
    for session in sessions:
        time_runs(session, inputs, WARM_UP)
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[-1]) < runs:
        for session, measured in zip(sessions, times, strict=True):
            measured += time_runs(session, inputs, min(BLOCK, runs - len(measured)))
    return Comparison(target=target, fp32_ms=spread(times[0]), int8_ms=spread(times[1]))


def time_runs(session: OrtSession, inputs: Mapping[str, np.ndarray], count: int) -> list[float]:
    """Milliseconds of each run."""
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        session.run(inputs)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def model_file(artifacts: Sequence[Mapping[str, Any]], target: str, precision: str) -> Path:
    for artifact in artifacts:
        if artifact["target"] == target and artifact["precision"] == precision:
            return Path(artifact["path"]) / "model.onnx"
    message = f"edgeship build made no onnx-{precision} for {target}"
    raise CannotMeasure(message)


def speed_goals(item: Comparison) -> list[Goal]:
    """By the medians: what an application sees."""
    speed = item.ratio_of_medians
    text = f"{item.target}: int8 is {speed:.2f}x fp32 (goal >= {SPEED_GOAL}x)"
    return [Goal(text=text, is_met=speed >= SPEED_GOAL)]


def accuracy_goals(artifact: Mapping[str, Any]) -> list[Goal]:
    """Of one artifact: points of top-1 against the float model, and how often the two agree."""
    metrics = artifact["evidence"][0]["metrics"]
    change = round(metrics["top1"] - metrics["reference_top1"], 9)  # shares of whole samples
    agreement = metrics["agreement"]
    name = name_of(artifact)
    return [
        Goal(
            text=f"{name}: top-1 {100 * change:+.2f} pt (goal >= {-100 * DROP_GOAL:.1f} pt)",
            is_met=change >= -DROP_GOAL,
        ),
        Goal(
            text=f"{name}: agrees on {100 * agreement:.2f} % (goal >= {100 * AGREEMENT_GOAL:g} %)",
            is_met=agreement >= AGREEMENT_GOAL,
        ),
    ]


def latency_lines(comparisons: Sequence[Comparison]) -> list[str]:
    rows = [("target", "file", "median ms", "min ms", "median ratio", "min ratio")]
    for item in comparisons:
        fp32, int8 = item.fp32_ms, item.int8_ms
        rows.append((item.target, "fp32", f"{fp32.median:.4f}", f"{fp32.low:.4f}", "", ""))
        ratios = (f"{item.ratio_of_medians:.2f}x", f"{item.ratio_of_minima:.2f}x")
        rows.append(("", "int8", f"{int8.median:.4f}", f"{int8.low:.4f}", *ratios))
    return table(rows)


def accuracy_lines(artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [("artifact", "kB", "top-1", "float top-1", "agreement", "samples")]
    for artifact in artifacts:
        evidence = artifact["evidence"][0]
        metrics = evidence["metrics"]
        shares = [f"{100 * metrics[key]:.2f} %" for key in ("top1", "reference_top1", "agreement")]
        size = f"{artifact['size_bytes'] / 1000:.0f}"
        rows.append(
            (name_of(artifact), size, shares[0], shares[1], shares[2], str(evidence["samples"]))
        )
    return table(rows)


def name_of(artifact: Mapping[str, Any]) -> str:
    return f"{artifact['target']}/{artifact['format']}-{artifact['precision']}"


if __name__ == "__main__":
    sys.exit(run_script(main))
