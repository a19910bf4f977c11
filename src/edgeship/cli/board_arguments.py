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
        help="of the evaluation data, beside the golden pack (default: 64; 0 for none)",
    )
    bench = add("bench", "time what was built on a board; count instructions on an emulated one")
    _add_selection(bench, add_project)
    bench.add_argument(
        "--plan",
        default="single-stream",
        metavar="NAME",
        help="single-stream (1024 queries and 60 s) or tiny (5 windows of 10 s), of a real board "
        "(default: single-stream)",
    )
    bench.add_argument("--threads", type=_count, default=1, metavar="N", help="(default: 1)")
    bundle = add("bundle", "pack what was built for a board, with what installs and tests it there")
    bundle.add_argument("target", metavar="TARGET", help="the board")
    bundle.add_argument(
        "--as", dest="kind", choices=("tar",), required=True, help="what it becomes"
    )
    bundle.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where it goes (default: here)"
    )
    _add_only(bundle)
    add_project(bundle)
    verify = add("verify", "check a bundle: sums, identities, nothing beside them; unpacks nothing")
    verify.add_argument("file", type=Path, help="what `edgeship bundle` made")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a device."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help=f"of devices.toml, or {LAB!r} for the emulated board of the target",
    )
    parser.add_argument(
        "--devices",
        type=Path,
        metavar="FILE",
        help="(default: $EDGESHIP_DEVICES, devices.toml beside the project, then that of the user)",
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
            "fetch Debian for ARM and make the image of the boards; takes about a minute",
            None,
        ),
        ("up", "turn a board on and leave it on", "name"),
        ("down", "turn a board off, or all", "names"),
        ("list", "the boards that there are, and those that are on", None),
        ("run", "run a command on a board", "command"),
    ):
        action = actions.add_parser(name, help=what, description=what, allow_abbrev=False)
        finish(action)
        if argument == "names":
            action.add_argument("names", nargs="*", metavar="BOARD")
        elif argument is not None:
            action.add_argument("name", metavar="BOARD")
        if argument == "command":
            action.add_argument("line", nargs=argparse.REMAINDER, metavar="-- COMMAND")


def _add_only(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--only",
        action="append",
        metavar="ARTIFACT",
        help="only this artifact, like tflite-int8; may be given several times (default: all that "
        "ship; bench: with fp32 files that were made to compare with)",
    )


def _add_selection(command: argparse.ArgumentParser, add_project: AddProject) -> None:
    command.add_argument("targets", nargs="*", metavar="TARGET", help="only these targets")
    add_device(command)
    _add_only(command)
    command.add_argument(
        "--force",
        action="store_true",
        help="try what the board does not seem to be able to run",
    )
    add_project(command)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number
