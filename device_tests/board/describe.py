"""Describe: the Python of a board, its numpy, and its runtimes with what keeps them from running.

{"event": "python", "version", "numpy", "problem", "machine", "glibc"}
{"event": "runtime", "name", "version", "kind", "path", "problem"}     for each that is there
"""

import argparse
import platform
import shutil
from typing import Dict

from edgeship.device_tests.board.lines import Lines
from edgeship.device_tests.board.packages import is_there, require_numpy, version_of
from edgeship.device_tests.board.runtimes import KINDS, load_runtime
from edgeship.device_tests.board.stopped import Stopped
from edgeship.device_tests.board.supervisor import Supervisor

_PYTHON = "python"
_PROGRAM = "program"
_SERVER = "llama-server"
_DEADLINE_S = 120.0
"""Of each worker; a choice: an import takes seconds on an emulated board."""


def describe(supervisor: Supervisor, options: argparse.Namespace) -> Dict[str, object]:
    """Ask one worker for each part, so that a runtime that kills it is told as such."""
    program = options.program or shutil.which(_SERVER)
    packages = [name for name in sorted(KINDS) if is_there(KINDS[name].module)]
    parts = [_PYTHON, *packages] + ([_PROGRAM] if program is not None else [])
    for part in parts:
        arguments = ["describe", "--only", part]
        if part == _PROGRAM:
            arguments += ["--program", str(program)]
        ended = supervisor.run(arguments, deadline_s=_DEADLINE_S)
        if ended.outcome == "ok":
            continue
        message = str(ended.values.get("message"))
        if part == _PYTHON:
            supervisor.lines.say(
                "python", **dict(_python(), numpy=None, problem="numpy: " + message)
            )
            continue
        kind = _PROGRAM if part == _PROGRAM else _PYTHON
        path = str(program) if part == _PROGRAM else None
        name = "llama.cpp" if part == _PROGRAM else part
        version = None if part == _PROGRAM else version_of(KINDS[part].package)
        _say(supervisor.lines, name, version, kind, path, message)
    return {"outcome": "ok", "message": None}


def run(options: argparse.Namespace, lines: Lines) -> Dict[str, object]:
    """One part, in a worker."""
    if options.only == _PYTHON:
        _say_python(lines)
    elif options.only == _PROGRAM:
        from edgeship.device_tests.board.llama_program import program_version

        version = program_version(options.program)
        _say(lines, "llama.cpp", version, _PROGRAM, options.program, None)
    else:
        _say_package(lines, options.only)
    return {"outcome": "ok", "message": None}


def _say_python(lines: Lines) -> None:
    try:
        lines.say("python", **dict(_python(), numpy=require_numpy(), problem=None))
    except Stopped as error:
        lines.say("python", **dict(_python(), numpy=None, problem=error.message))


def _say_package(lines: Lines, name: str) -> None:
    """One that is there, and perhaps cannot be used."""
    version, problem = version_of(KINDS[name].package), None
    try:
        version = load_runtime(name).version
    except Stopped as error:
        problem = error.message
    _say(lines, name, version, _PYTHON, None, problem)


def _python() -> Dict[str, object]:
    library, version = platform.libc_ver()
    return {
        "version": platform.python_version(),
        "machine": platform.machine(),
        "glibc": version if library == "glibc" else None,
    }


def _say(
    lines: Lines, name: str, version: object, kind: str, path: object, problem: object
) -> None:
    lines.say("runtime", name=name, version=version, kind=kind, path=path, problem=problem)
