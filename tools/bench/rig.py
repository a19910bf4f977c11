"""What the benchmarks share: the project that they build, medians and ratios, goals, the output."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from edgeship.evidence import describe_host, utc_now

REPOSITORY: Final = Path(__file__).resolve().parents[2]
DEFAULT_SHARED: Final = REPOSITORY.parent / "shared" / "data"
JUDGED: Final = frozenset({0, 4, 5, 8})
"""Exit codes with which `edgeship build` has built everything: the verdicts are another matter."""
_PROJECT: Final = """\
[model]
name = "resnet20"
factory = "resnet.py:build"
weights = "resnet20.th"
[model.inputs.image]
shape = [1, 3, 32, 32]
preprocess = { size = [32, 32], mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }
[model.outputs]
labels = "labels.txt"
[calibration]
data = "calib"
samples = 512
[evaluation]
data = "test"
metric = "top1"
"""


class CannotMeasure(Exception):
    """Something that the benchmark needs is absent; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and extremes of repeated measurements of one quantity."""

    median: float
    low: float
    high: float

    def text(self, decimals: int) -> str:
        """`median (low..high)`."""
        return f"{self.median:.{decimals}f} ({self.low:.{decimals}f}..{self.high:.{decimals}f})"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A promise and whether this run kept it; a benchmark reports it and exits 0 all the same."""

    text: str
    is_met: bool

    def line(self) -> str:
        """`text: met` or `text: missed`."""
        return f"{self.text}: {'met' if self.is_met else 'missed'}"


def spread(values: Iterable[float]) -> Spread:
    """Median, minimum and maximum of at least one value."""
    known = list(values)
    return Spread(median=statistics.median(known), low=min(known), high=max(known))


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; infinite where there is nothing to divide by."""
    return numerator / denominator if denominator else float("inf")


def make_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of every benchmark."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument(
        "--shared",
        type=Path,
        default=DEFAULT_SHARED,
        metavar="DIR",
        help="folder with cifar10/ and resnet_cifar/ (default: ../shared/data beside the checkout)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def positive(text: str) -> int:
    """An argument that is an integer from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")  # noqa: EM102 - argparse shows it
    return number


def run_script(main: Callable[[], int]) -> int:
    """Exit code of `main`; 2, with one line on stderr, if it cannot measure."""
    try:
        return main()
    except CannotMeasure as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def make_project(directory: Path, shared: Path, targets: Sequence[str]) -> Path:
    """Make an edgeship project of ResNet-20 and CIFAR-10 for onnx on `targets`; its project file.

    Raises:
        CannotMeasure: The data is not there.
    """
    weights = shared / "resnet_cifar" / "resnet20-12fca82f.th"
    calib, test = shared / "cifar10" / "calib", shared / "cifar10" / "test"
    for path in (weights, calib, test):
        if not path.exists():
            message = f"{path} is missing: name the folder that holds the data with --shared DIR"
            raise CannotMeasure(message)
    shutil.copyfile(Path(__file__).with_name("resnet.py"), directory / "resnet.py")
    shutil.copyfile(weights, directory / "resnet20.th")
    for name, folder in (("calib", calib), ("test", test)):
        (directory / name).symlink_to(folder.resolve(), target_is_directory=True)
    classes = sorted(path.name for path in test.iterdir() if path.is_dir())
    (directory / "labels.txt").write_text("".join(f"{name}\n" for name in classes))
    file = directory / "edgeship.toml"
    sections = "".join(f'[targets.{name}]\nformats = ["onnx"]\n' for name in targets)
    file.write_text(_PROJECT + sections)
    return file


def build_command(project: Path) -> list[str]:
    """`edgeship build` by this interpreter, without the current directory on its path."""
    arguments = ["build", "--json", "--quiet", "--project", str(project)]
    return [sys.executable, "-P", "-m", "edgeship", *arguments]


def build_project(project: Path) -> list[Mapping[str, Any]]:
    """Build a project through the command line; its artifacts, as `--json` tells them.

    Raises:
        CannotMeasure: An artifact was not built.
    """
    done = subprocess.run(build_command(project), stdout=subprocess.PIPE, check=False)
    if done.returncode not in JUDGED:
        message = f"edgeship build exits {done.returncode}: see above"
        raise CannotMeasure(message)
    artifacts: list[Mapping[str, Any]] = json.loads(done.stdout)["artifacts"]
    for artifact in artifacts:
        if "path" not in artifact:
            message = f"edgeship build did not make {artifact['target']}: see above"
            raise CannotMeasure(message)
    return artifacts


def describe_run(packages: Sequence[str]) -> dict[str, str]:
    """Where and when: CPU, OS, load, Python and package versions, the time."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    versions = {name: _version(name) for name in packages}
    python = ".".join(str(part) for part in sys.version_info[:3])
    cores = {"cores": str(os.cpu_count()), "load average": load, "python": python}
    return {**describe_host(), **cores, **versions, "at": utc_now()}


def report(
    run: Mapping[str, str],
    lines: Sequence[str],
    goals: Sequence[Goal],
    value: Mapping[str, object],
    *,
    as_json: bool,
) -> None:
    """Print the result: lines and goals for people, or `value` with the same goals as JSON."""
    if as_json:
        told = [asdict(goal) for goal in goals]
        print(json.dumps({"run": run, **value, "goals": told}, indent=1))
        return
    print(", ".join(f"{key} {text}" for key, text in run.items()))
    print("\n".join(["", *lines, "", *(goal.line() for goal in goals)]))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
