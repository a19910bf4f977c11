"""The arguments of every command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from edgeship import __version__

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
    for name, text in (
        ("plan", "show what a build would make, and check the project; writes nothing"),
        ("build", "make every artifact that is not there yet, and judge it"),
        ("check", "judge what was built against the budgets; builds nothing"),
    ):
        command = _command(commands, name, text)
        command.add_argument("targets", nargs="*", metavar="TARGET", help="only these targets")
        command.add_argument(
            "-p",
            "--project",
            type=Path,
            default=Path("edgeship.toml"),
            metavar="FILE",
            help="the project file (default: ./edgeship.toml)",
        )
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("-q", "--quiet", action="store_true", help="only the result and errors")
    return command
