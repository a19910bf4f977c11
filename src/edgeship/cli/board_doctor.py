"""The result of `edgeship doctor --device NAME`."""

from __future__ import annotations

import argparse
from typing import Final

from edgeship.cli.result import Result, command_value
from edgeship.cli.telling import make_story
from edgeship.device_tests.probe.lines import (
    RUNTIME_HEADERS,
    facts_lines,
    runtime_rows,
    warning_lines,
)
from edgeship.device_tests.probe.probe_file import write_probe_file
from edgeship.device_tests.session import LAB, Devices, devices_of, open_named
from edgeship.errors import ConfigurationError, Problem

_PROBES: Final = ".edgeship/probes"


def board_doctor(arguments: argparse.Namespace) -> Result:
    """What a board is and has; kept as a probe file beside the project."""
    directory = arguments.project.absolute().parent
    devices = devices_of(arguments.devices, directory, arguments.device)
    _require_one_board(devices)
    story = make_story(is_quiet=arguments.quiet)
    with open_named(devices, story) as board:
        facts, place = board.facts, board.place
    file = directory / _PROBES / f"{arguments.device.replace(':', '-')}.json"
    write_probe_file(file, facts)
    warnings = warning_lines(facts)
    return Result(
        headers=RUNTIME_HEADERS,
        rows=runtime_rows(facts),
        lines=[
            *facts_lines(facts),
            *(f"note: {line}" for line in warnings),
            f"kept in {file.relative_to(directory)}",
        ],
        value=command_value("doctor", [])
        | {
            "device": arguments.device,
            "place": str(place),
            "facts": facts.to_json(),
            "warnings": list(warnings),
            "file": str(file),
        },
    )


def _require_one_board(devices: Devices) -> None:
    """`lab` stands for the board of a target, and here no target is named."""
    if devices.wanted != LAB or LAB in devices.known:
        return
    problem = Problem(
        where="--device",
        what=f"{LAB!r} alone does not say which emulated board",
        expected=f"{LAB}:TARGET, like {LAB}:raspberry-pi-4",
        remedy="`edgeship lab list` names those that can be emulated",
    )
    raise ConfigurationError(problem)
