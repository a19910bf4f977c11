"""`edgeship`: runs one command and returns its exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from edgeship.cli.arguments import make_parser
from edgeship.errors import EdgeshipError, ExitCode

if TYPE_CHECKING:
    import argparse

    from edgeship.cli.result import Result


COMMANDS: Final[Mapping[str, str]] = {
    "init": "edgeship.cli.projects:init",
    "doctor": "edgeship.cli.doctor:doctor",
    "targets": "edgeship.cli.catalogue:catalogue",
    "inspect": "edgeship.cli.inspect:inspect",
    "plan": "edgeship.cli.projects:plan",
    "build": "edgeship.cli.projects:build",
    "check": "edgeship.cli.projects:check",
    "test": "edgeship.cli.boards:test",
    "bench": "edgeship.cli.boards:bench",
    "bundle": "edgeship.cli.bundles:bundle",
    "verify": "edgeship.cli.bundles:verify",
    "lab": "edgeship.cli.lab:lab",
    "evidence": "edgeship.cli.imports:evidence",
}
"""What runs each command: "module:function", from its arguments to its result."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `edgeship` with `argv` (default: the process's arguments).

    A bug of ours is not caught: it keeps its traceback, and Python exits 1.
    """
    arguments = make_parser().parse_args(argv)
    from edgeship.cli.result import failure
    from edgeship.cli.screen import show

    try:
        result = _run(arguments)
    except EdgeshipError as error:
        result = failure(arguments.command, error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: artifacts that were not sealed yet are as they were\n")
        return ExitCode.INTERRUPTED
    show(result, as_json=arguments.json)
    return result.exit_code


def _run(arguments: argparse.Namespace) -> Result:
    module, _, attribute = COMMANDS[arguments.command].partition(":")
    result: Result = getattr(importlib.import_module(module), attribute)(arguments)
    return result
