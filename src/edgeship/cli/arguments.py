"""The arguments of every command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from edgeship import __version__
from edgeship.cli.board_arguments import (
    add_board_commands,
    add_device,
    add_evidence_commands,
    add_lab_commands,
)

_EPILOG: Final = """\
exit codes: 0 ok, 1 internal, 2 usage or configuration, 3 export failed, 4 accuracy, 5 budget,
6 device mismatch, 7 measurement invalid, 8 something required is missing, 9 integrity refused,
130 interrupted. Of several the lowest wins; --json lists all."""


def make_parser() -> argparse.ArgumentParser:
    """The parser of `edgeship`; the chosen command is in `command`."""
    parser = argparse.ArgumentParser(
        prog="edgeship",
        description="One checkpoint in; for every board an artifact that is calibrated, measured "
        "and judged.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"edgeship {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    targets = _command(commands, "targets", "list the boards of the catalogue, or show one")
    targets.add_argument("name", nargs="?", help="the board to show, with the source of each fact")
    inspect = _command(commands, "inspect", "say what a checkpoint holds, and what could take it")
    inspect.add_argument("checkpoint", type=Path, help="a file or a Hugging Face directory")
    inspect.add_argument("--teacher", type=Path, help="the checkpoint that it was distilled from")
    _add_init(commands)
    text = "say what this machine or a board has and lacks; installs nothing"
    doctor = _command(commands, "doctor", text)
    add_device(doctor)
    _add_project(doctor)
    for name, text in (
        ("plan", "show what a build would make, and check the project; writes nothing"),
        ("build", "make every artifact that is not there yet, and judge it"),
        ("check", "judge what was built against the budgets; builds nothing"),
    ):
        command = _command(commands, name, text)
        command.add_argument("targets", nargs="*", metavar="TARGET", help="only these targets")
        _add_project(command)
        if name == "build":
            command.add_argument(
                "--skip-bad-samples",
                action="store_true",
                help="leave out samples that cannot be loaded, and say which",
            )
    add_board_commands(lambda name, text: _command(commands, name, text), _add_project)
    add_lab_commands(commands, _add_common)
    add_evidence_commands(commands, _add_common, _add_project)
    return parser


def _add_init(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = _command(
        commands, "init", "write edgeship.toml, with budgets proposed from a first build"
    )
    init.add_argument("source", help="model.py:build, a Hugging Face directory, .pt2 or .onnx")
    init.add_argument("--weights", help="the checkpoint, for a factory")
    init.add_argument("--shape", type=_integers, help="of an image, like 1,3,224,224")
    init.add_argument("--mean", type=_numbers, help="of each channel, like 0.485,0.456,0.406")
    init.add_argument("--std", type=_numbers, help="of each channel, like 0.229,0.224,0.225")
    init.add_argument("--length", type=int, help="tokens of a text (default: 128)")
    init.add_argument("--labels", help="a file with one label for each class")
    init.add_argument("--calibration", help="representative data")
    init.add_argument("--evaluation", help="other data")
    init.add_argument("--metric", help="top1, agreement or cosine")
    init.add_argument(
        "--target", action="append", required=True, help="a board; may be given several times"
    )
    _add_project(init)


def _add_project(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-p",
        "--project",
        type=Path,
        default=Path("edgeship.toml"),
        metavar="FILE",
        help="the project file (default: ./edgeship.toml)",
    )


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(item) for item in text.split(","))


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    _add_common(command)
    return command


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("-q", "--quiet", action="store_true", help="only the result and errors")
