"""The result of `edgeship inspect`."""

from __future__ import annotations

import argparse

from edgeship.cli.result import Result
from edgeship.exporters.registry import EXPORTERS
from edgeship.source.comparison_text import destination_lines, lineage_lines
from edgeship.source.destination import find_destinations
from edgeship.source.survey import survey_checkpoint
from edgeship.source.survey_text import survey_lines
from edgeship.targets import load_target, target_names


def inspect(arguments: argparse.Namespace) -> Result:
    """Survey a checkpoint, compare it with its teacher if there is one, and find who takes it."""
    survey = survey_checkpoint(arguments.checkpoint, teacher=arguments.teacher)
    targets = [load_target(name) for name in target_names()]
    found = find_destinations(survey, targets, makeable=set(EXPORTERS))
    lines = list(survey_lines(survey))
    if survey.lineage is not None:
        lines += ["", *lineage_lines(survey.lineage)]
    value: dict[str, object] = {
        "command": "inspect",
        "exit_code": 0,
        "exit_codes": [],
        **survey.to_json(),
        "destinations": [destination.to_json() for destination in found],
    }
    return Result(lines=[*lines, "", *destination_lines(survey, found)], value=value)
