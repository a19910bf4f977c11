"""Time of `edgeship --help` without any package, and of a build that finds everything done."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edgeship.tools.bench.rig import (
    JUDGED,
    REPOSITORY,
    CannotMeasure,
    Goal,
    Spread,
    build_command,
    build_project,
    describe_run,
    make_parser,
    make_project,
    positive,
    report,
    run_script,
    spread,
    table,
)

HELP_GOAL_S: Final = 0.2
BUILD_GOAL_S: Final = 2.0
_BARE: Final = (sys.executable, "-S")
"""Without site-packages."""
_PACKAGES: Final = ("numpy",)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Wall and CPU seconds of a command."""

    name: str
    wall_s: Spread
    cpu_s: Spread


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        project = make_project(Path(name), arguments.shared, ["raspberry-pi-4", "linux-x86-64"])
        timed = [
            time_bare("python -S -c pass", ["-c", "pass"], name, arguments.runs),
            time_bare("edgeship --help", ["-m", "edgeship", "--help"], name, arguments.runs),
            time_second_build(project, arguments.builds),
        ]
    goals = [
        Goal(
            text=f"edgeship --help takes {1000 * timed[1].wall_s.median:.0f} ms "
            f"(goal < {1000 * HELP_GOAL_S:.0f} ms)",
            is_met=timed[1].wall_s.median < HELP_GOAL_S,
        ),
        Goal(
            text=f"a second build takes {timed[2].wall_s.median:.2f} s (goal < {BUILD_GOAL_S:g} s)",
            is_met=timed[2].wall_s.median < BUILD_GOAL_S,
        ),
    ]
    rows = [("command", "wall s", "CPU s")]
    rows += [(item.name, item.wall_s.text(3), item.cpu_s.text(3)) for item in timed]
    lines = [
        f"median (min..max) of {arguments.runs} runs, of {arguments.builds} second builds",
        *table(rows),
    ]
    value = {"commands": [asdict(item) for item in timed]}
    report(run, lines, goals, value, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--runs", type=positive, default=15, metavar="N", help="runs of --help")
    parser.add_argument("--builds", type=positive, default=5, metavar="N", help="second builds")
    return parser.parse_args(argv)


def time_bare(name: str, arguments: Sequence[str], directory: str, runs: int) -> Timed:
    """A command of the source tree in an interpreter that sees the standard library only.

    The first run is not counted: it may have to write bytecode, which an installation has already.
    """
    environment = {"PYTHONPATH": str(REPOSITORY / "src"), "PATH": os.environ.get("PATH", "")}
    command = [*_BARE, *arguments]
    costs = [time_command(command, directory, environment)[:2] for _ in range(runs + 1)][1:]
    return timed_from_costs(name, costs)


def time_second_build(project: Path, runs: int) -> Timed:
    """Builds after the first: every one must find all stages done."""
    build_project(project)
    time.sleep(1.1)  # digests of files younger than a second are not remembered
    build_project(project)
    costs = []
    for _ in range(runs):
        wall, cpu, output = time_command(build_command(project), str(project.parent), os.environ)
        stages = json.loads(output)["stages_run"]
        if stages:
            message = f"the second build ran {stages} stages: it is no full hit"
            raise CannotMeasure(message)
        costs.append((wall, cpu))
    return timed_from_costs("second edgeship build", costs)


def time_command(
    command: Sequence[str], directory: str, environment: Mapping[str, str]
) -> tuple[float, float, bytes]:
    """Wall seconds, CPU seconds and stdout of a command."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        content = output.read()
    if process.returncode not in JUDGED:
        message = f"{' '.join(command)} exits {process.returncode}: see above"
        raise CannotMeasure(message)
    return wall, usage.ru_utime + usage.ru_stime, content


def timed_from_costs(name: str, costs: Sequence[tuple[float, float]]) -> Timed:
    return Timed(
        name=name,
        wall_s=spread(wall for wall, _ in costs),
        cpu_s=spread(cpu for _, cpu in costs),
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
