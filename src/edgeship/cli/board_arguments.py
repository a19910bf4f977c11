"""The arguments of the commands that have to do with boards."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

Add = Callable[[str, str], argparse.ArgumentParser]
"""Adds a command by its name and what it does."""
AddProject = Callable[[argparse.ArgumentParser], None]
"""Adds the option that names the project's file."""

LAB: Final = "lab"
"""The name of every target's emulated board, where devices.toml has none of its own."""


def add_board_commands(add: Add, add_project: AddProject) -> None:
    """Add `test`, `bench`, `bundle` and `verify`."""
    test = add("test", "run what was built on a board, or on an emulated one, and compare")
    _add_selection(test, add_project)
    test.add_argument(
        "--samples",
        type=_count,
        default=64,
        metavar="N",
        help="so many of the evaluation data, beside the golden pack (default: 64; 0 for none)",
    )
    bench = add("bench", "time what was built on a board; count instructions on an emulated one")
    _add_selection(bench, add_project)
    bench.add_argument(
        "--plan",
        default="single-stream",
        metavar="NAME",
        help="how much is timed on a real board: single-stream (1024 queries and 60 s, then hot) "
        "or tiny (5 windows of 10 s); docs/latency.md (default: single-stream)",
    )
    bench.add_argument(
        "--threads",
        type=_at_least_one,
        default=1,
        metavar="N",
        help="of the runtime, on a real board; an emulated one counts on one (default: 1)",
    )
    bundle = add("bundle", "pack what was built for a board, with what installs and tests it there")
    bundle.add_argument("target", metavar="TARGET", help="the board")
    bundle.add_argument(
        "--as", dest="kind", choices=("tar",), required=True, help="the kind of bundle: tar"
    )
    bundle.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="its folder (default: this one)"
    )
    _add_only(bundle)
    add_project(bundle)
    verify = add("verify", "check a bundle: sums, identities, nothing beside them; unpacks nothing")
    verify.add_argument("file", type=Path, help="what `edgeship bundle` made")


def add_device(parser: argparse.ArgumentParser, *, emulated: str = f"{LAB}:TARGET") -> None:
    """Add the options that name a device; `emulated` is the name of an emulated board there."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help=f"a board of devices.toml, or {emulated} for the emulated one of the target",
    )
    parser.add_argument(
        "--devices",
        type=Path,
        metavar="FILE",
        help="where boards are written (default: $EDGESHIP_DEVICES, else devices.toml beside the "
        "project, else that of the user)",
    )


def add_lab_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], finish: Callable[..., None]
) -> None:
    """Add `lab build|up|down|list|run`; `finish` adds the options that every command has."""
    text = "emulated boards, to test on where no board is at hand"
    lab = commands.add_parser("lab", help=text, description=text, allow_abbrev=False)
    actions = lab.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, what, argument in (
        (
            "build",
            "make the image of the boards from Debian for ARM and real runtimes; fetches about "
            "120 MB, takes about a minute",
            None,
        ),
        ("up", "turn a board on and leave it on", "name"),
        ("down", "turn a board off, or all", "names"),
        ("list", "the boards that can be emulated, and those that are on", None),
        ("run", "run a command on a board that is on, and wait for it", "command"),
    ):
        action = actions.add_parser(name, help=what, description=what, allow_abbrev=False)
        finish(action)
        if argument == "names":
            action.add_argument("names", nargs="*", metavar="BOARD")
        elif argument is not None:
            action.add_argument("name", metavar="BOARD")
        if argument == "command":
            action.add_argument("line", nargs=argparse.REMAINDER, metavar="-- COMMAND")


def add_evidence_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    finish: Callable[..., None],
    add_project: AddProject,
) -> None:
    """Add `evidence import`; `finish` adds the options that every command has."""
    text = "what boards found that edgeship did not run itself"
    evidence = commands.add_parser("evidence", help=text, description=text, allow_abbrev=False)
    actions = evidence.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "keep the engine_report.json that a kit's build_engine.py wrote on a board"
    taken = actions.add_parser("import", help=text, description=text, allow_abbrev=False)
    finish(taken)
    taken.add_argument("file", type=Path, metavar="FILE", help="engine_report.json")
    add_project(taken)


def _add_only(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--only",
        action="append",
        metavar="ARTIFACT",
        help="only this artifact, like tflite-int8; may be given several times (default: all that "
        "ship; of bench also the fp32 files that were made to compare with)",
    )


def _add_selection(command: argparse.ArgumentParser, add_project: AddProject) -> None:
    command.add_argument("targets", nargs="*", metavar="TARGET", help="only these targets")
    add_device(command, emulated=LAB)
    _add_only(command)
    command.add_argument(
        "--force",
        action="store_true",
        help="try even what the board does not seem able to run; becomes no evidence",
    )
    add_project(command)


def _count(text: str) -> int:
    return _number(text, least=0)


def _at_least_one(text: str) -> int:
    return _number(text, least=1)


def _number(text: str, *, least: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() else None
    if number is None or number < least:
        message = f"expected a whole number from {least} on, found {text!r}"
        raise argparse.ArgumentTypeError(message)
    return number
