"""Integer .tflite files against their float models: ResNet-20, and two nets like MLPerf Tiny's."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edgeship.evaluate.speed import speed_line
from edgeship.evidence import Evidence, describe_host
from edgeship.runtimes.protocol import load_runtime, runtime_package
from edgeship.tools.bench.rig import (
    CannotMeasure,
    Goal,
    describe_run,
    make_parser,
    make_project,
    positive,
    report,
    run_script,
    table,
)
from edgeship.tools.bench.tflite_net import RUNTIME, Net, measure
from edgeship.tools.bench.tflite_steps import STEPS
from edgeship.tools.bench.tiny_training import NETS, make_tiny_project
from edgeship.vocabulary import Metric

TARGET: Final = "raspberry-pi-4"
CPU_GOAL_S: Final = 20.0
_ROUNDING: Final = 1e-9
_PACKAGES: Final = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch", "numpy")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a net is held against: fractions, times the speed of fp32, bytes (None: any)."""

    drop: float = 0.011
    agreement: float = 0.96
    speed: float = 1.0
    size: int | None = None


BARS: Final[Mapping[str, Bar]] = {
    "resnet20": Bar(drop=0.010, speed=2.4, size=335_000),
    "mobilenet": Bar(agreement=0.985),
}
"""Those of the two small nets are what MLPerf Tiny's own int8 files reach: 1.1 points lost by
ResNet-8, 98.5 % agreement of the visual wake words net (as handed down; not measured here)."""
_SECTION: Final = f'[targets.{TARGET}]\nformats = ["tflite"]\n'


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        root = Path(name)
        project = resnet20_project(root, arguments.shared)
        nets = [measure("resnet20", project)]
        steps = measure_steps(project, arguments.samples)
        if not arguments.no_tiny:
            for net in NETS:
                directory = root / net.name
                directory.mkdir()
                nets.append(measure(net.name, make_tiny_project(net, directory, arguments.shared)))
    lines = [
        *content_lines(nets),
        "",
        *accuracy_lines(nets),
        "",
        *speed_lines(nets),
        "",
        *step_lines(steps, arguments.samples),
    ]
    value = {"nets": [net_value(net) for net in nets], "cpu_s": steps}
    goals = [*(goal for net in nets for goal in net_goals(net)), step_goal(steps)]
    report(run, lines, goals, value, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--samples", type=positive, default=500, metavar="N", help="samples that are observed"
    )
    parser.add_argument(
        "--no-tiny", action="store_true", help="leave out the nets that are trained here"
    )
    return parser.parse_args(argv)


def resnet20_project(root: Path, shared: Path) -> Path:
    """The rig's project, for tflite on one target."""
    directory = root / "resnet20"
    directory.mkdir()
    project = make_project(directory, shared, ())
    project.write_text(project.read_text() + _SECTION)
    return project


def measure_steps(project: Path, samples: int) -> dict[str, float]:
    """CPU seconds by step, in a process of its own."""
    command = [sys.executable, "-P", "-m", "edgeship.tools.bench.tflite_steps"]
    command += [str(project), str(samples)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        message = f"the steps exit {done.returncode}: see above"
        raise CannotMeasure(message)
    cpu_s: dict[str, float] = json.loads(done.stdout)
    return cpu_s


def net_goals(net: Net) -> list[Goal]:
    content, bar = net.content, BARS.get(net.name, Bar())
    strays = content.float_tensors + content.transposes + content.conversions
    speed = 1 / net.speed.ratio
    goals = [
        Goal(text=f"{net.name}: {strays} float tensors, transposes, casts", is_met=strays == 0),
        Goal(
            text=f"{net.name}: int8 is {speed:.2f}x fp32 (goal >= {bar.speed:g}x)",
            is_met=speed >= bar.speed,
        ),
    ]
    if bar.size is not None:
        text = f"{net.name}: {content.bytes} bytes (goal <= {bar.size})"
        goals.append(Goal(text=text, is_met=content.bytes <= bar.size))
    for runtime, evidence in net.evidence.items():
        goals += _accuracy_goals(f"{net.name} in {runtime}", evidence, bar)
    return goals


def _accuracy_goals(where: str, evidence: Evidence, bar: Bar) -> list[Goal]:
    change, agreement = change_of(evidence), evidence.metrics[Metric.AGREEMENT]
    return [
        Goal(
            text=f"{where}: top-1 {100 * change:+.2f} pt (goal >= {-100 * bar.drop:.1f} pt)",
            is_met=change >= -bar.drop - _ROUNDING,
        ),
        Goal(
            text=f"{where}: agrees on {100 * agreement:.2f} % (goal >= {100 * bar.agreement:g} %)",
            is_met=agreement >= bar.agreement - _ROUNDING,
        ),
    ]


def step_goal(steps: Mapping[str, float]) -> Goal:
    """Imports count: a user pays for them too."""
    total = sum(steps.values())
    return Goal(
        text=f"resnet20: {total:.1f} CPU s with imports (goal < {CPU_GOAL_S:g} s)",
        is_met=total < CPU_GOAL_S,
    )


def change_of(evidence: Evidence) -> float:
    """What top-1 gained over the float model, as a fraction."""
    return evidence.metrics[Metric.TOP1] - evidence.metrics[Metric.REFERENCE_TOP1]


def content_lines(nets: Sequence[Net]) -> list[str]:
    rows = [("net", "int8 bytes", "fp32 bytes", "float tensors", "transposes", "casts")]
    for net in nets:
        item = net.content
        sizes = str(item.bytes), str(item.float_bytes)
        strays = str(item.float_tensors), str(item.transposes), str(item.conversions)
        rows.append((net.name, *sizes, *strays))
    return table(rows)


def accuracy_lines(nets: Sequence[Net]) -> list[str]:
    rows = [("net", "runtime", "top-1", "float top-1", "change", "agreement", "samples")]
    for net in nets:
        for runtime, evidence in net.evidence.items():
            keys = (Metric.TOP1, Metric.REFERENCE_TOP1, Metric.AGREEMENT)
            top1, float_top1, agreement = (f"{100 * evidence.metrics[key]:.2f} %" for key in keys)
            change = f"{100 * change_of(evidence):+.2f} pt"
            samples = str(evidence.samples)
            rows.append((net.name, runtime, top1, float_top1, change, agreement, samples))
    return table(rows)


def speed_lines(nets: Sequence[Net]) -> list[str]:
    """Wall and CPU time, and the line that a verdict would show."""
    rows = [("net", "int8 ms", "fp32 ms", "int8 / fp32 CPU time", "wall time", "outside XNNPACK")]
    for net in nets:
        speed, (low, high) = net.speed, net.speed.spread
        outside = ", ".join(f"{count} {name}" for name, count in net.outside.items())
        times = f"{speed.one_ms:.4f}", f"{speed.other_ms:.4f}"
        share = f"{speed.ratio:.3f} ({low:.3f}..{high:.3f})"
        rows.append((net.name, *times, share, f"{speed.wall_ratio:.3f}", outside or "nothing"))
    package = runtime_package(RUNTIME)
    where = describe_host() | {"runtime": package, "version": load_runtime(RUNTIME).version() or ""}
    said = [
        f"{net.name}: "
        + speed_line(net.speed.ratio, net.speed.spread, outside=net.fell_out, where=where)
        for net in nets
    ]
    return [*table(rows), "", *said]


def step_lines(steps: Mapping[str, float], samples: int) -> list[str]:
    rows = [("step", "CPU s"), *((step, f"{steps[step]:.2f}") for step in STEPS)]
    work = sum(steps[step] for step in STEPS if step != "imports")
    together = ("lower + observe + emit", f"{work:.2f}")
    return [f"resnet20, {samples} samples", *table([*rows, together])]


def net_value(net: Net) -> dict[str, object]:
    """For `--json`."""
    evidence = {name: item.to_json() for name, item in net.evidence.items()}
    return {**asdict(net), "evidence": evidence}


if __name__ == "__main__":
    sys.exit(run_script(main))
