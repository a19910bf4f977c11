"""The results of `edgeship lab build | up | down | list | run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edgeship.cli.result import Result, command_value
from edgeship.cli.telling import make_story
from edgeship.device_tests.lab import commands
from edgeship.device_tests.lab.commands import ListedBoard
from edgeship.device_tests.lab.standing import StandingBoard
from edgeship.errors import ConfigurationError, ExitCode, Problem

_RUN_S: Final = 3600.0
"""A choice: longest that a command on an emulated board may take."""


def lab(arguments: argparse.Namespace) -> Result:
    """Run one action of the lab."""
    return _ACTIONS[arguments.action](arguments)


def _build(arguments: argparse.Namespace) -> Result:
    story = make_story(is_quiet=arguments.quiet)
    built = commands.build(story=story)
    image = built.image
    how = f"was built in {image.build_s:.0f} s" if built.is_new else "was there already"
    lines = [
        f"the image {how}: {len(image.packages)} Debian packages, {', '.join(image.wheels)}",
        f"it is in {image.folder}",
        "`edgeship test TARGET` boots a board of it where no other device is at hand",
    ]
    value = {"image": image.key, "is_new": built.is_new, "folder": str(image.folder)}
    return Result(lines=lines, value=command_value("lab build", []) | value)


def _up(arguments: argparse.Namespace) -> Result:
    standing = commands.up(arguments.name, story=make_story(is_quiet=arguments.quiet))
    return _listed("lab up", [ListedBoard(board=standing.board, standing=standing)])


def _down(arguments: argparse.Namespace) -> Result:
    off = commands.down(arguments.names, story=make_story(is_quiet=arguments.quiet))
    names = [standing.board.name for standing in off]
    return Result(
        lines=[f"{name} is off" for name in names] or ["no board was on"],
        value=command_value("lab down", []) | {"off": names},
    )


def _list(_: argparse.Namespace) -> Result:
    return _listed("lab list", commands.listing())


def _run(arguments: argparse.Namespace) -> Result:
    line = arguments.line[1:] if arguments.line[:1] == ["--"] else arguments.line
    if not line:
        problem = Problem(
            where="edgeship lab run",
            what="no command is given",
            expected="edgeship lab run BOARD -- COMMAND",
            remedy="name what to run there, after --",
        )
        raise ConfigurationError(problem)
    written: list[str] = []

    def tell(text: str) -> None:
        written.append(text)
        if not arguments.json:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    ended = commands.run(arguments.name, line, deadline_s=_RUN_S, on_line=tell)
    sys.stderr.write(ended.stderr.decode(errors="replace"))
    how = f"signal {ended.signal}" if ended.signal else f"status {ended.status}"
    code = ExitCode.OK if ended.is_ok else ExitCode.DEVICE_MISMATCH
    return Result(
        lines=[] if ended.is_ok else [f"the command ended with {how}"],
        value=command_value("lab run", [code])
        | {"stdout": written, "status": ended.status, "signal": ended.signal},
        exit_code=code,
    )


def _listed(command: str, boards: Sequence[ListedBoard]) -> Result:
    return Result(
        headers=("board", "cpu", "cores", "memory", "state", "ssh"),
        rows=[
            (
                item.board.name,
                item.board.cpu,
                str(item.board.cores),
                f"{item.board.memory_bytes >> 20} MiB",
                "off" if item.standing is None else "on",
                "-" if item.standing is None else _login(item.standing),
            )
            for item in boards
        ],
        value=command_value(command, [])
        | {
            "boards": [
                {
                    "name": item.board.name,
                    "cpu": item.board.cpu,
                    "cores": item.board.cores,
                    "memory_bytes": item.board.memory_bytes,
                    "is_on": item.standing is not None,
                    "ssh": None if item.standing is None else _login(item.standing),
                }
                for item in boards
            ]
        },
    )


def _login(standing: StandingBoard) -> str:
    """A command line that logs in."""
    address = standing.address()
    return (
        f"ssh -i {address.key} -o UserKnownHostsFile={address.known_hosts} "
        f"-p {address.port} {address.user}@{address.host}"
    )


_ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace], Result]]] = {
    "build": _build,
    "up": _up,
    "down": _down,
    "list": _list,
    "run": _run,
}
