"""The result of `edgeship evidence import`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from edgeship.budget import worst_exit_code
from edgeship.cli.evidence_lines import board_lines
from edgeship.cli.result import Result, command_value, item_value
from edgeship.cli.telling import make_story
from edgeship.pipeline.importing import Imported, import_report
from edgeship.pipeline.plan import make_plan
from edgeship.project_file import read_project
from edgeship.vocabulary import Verdict


def evidence(arguments: argparse.Namespace) -> Result:
    """Keep what a board reported of the kit that was built here."""
    story = make_story(is_quiet=arguments.quiet)
    imported = import_report(make_plan(read_project(arguments.project)), arguments.file, story)
    codes = imported.exit_codes
    return Result(
        headers=("artifact", "graph", "device", "tensorrt", "evidence", "p95"),
        rows=list(_rows(imported)),
        lines=list(_lines(imported)),
        value=command_value("evidence import", codes)
        | item_value(imported.item)
        | {
            "artifact_id": imported.report.artifact_id,
            "recommended": imported.report.recommended,
            "reason": imported.report.reason,
            "evidence": [item.to_json() for item in imported.report.evidence],
            "judgements": [judgement.to_json() for judgement in imported.judgements],
        },
        exit_code=worst_exit_code(codes),
    )


def _rows(imported: Imported) -> Iterator[tuple[str, ...]]:
    for item in imported.report.evidence:
        yield (
            imported.item.name,
            item.where["graph"],
            item.where.get("device", "-"),
            item.where["version"],
            f"{item.rung} on {item.place}",
            "-" if item.latency is None else f"{item.latency.p95_ms:.3g} ms",
        )


def _lines(imported: Imported) -> Iterator[str]:
    name = imported.item.name
    yield f"{name}: {imported.report.recommended or 'no engine'} serves: {imported.report.reason}"
    for item in imported.report.evidence:
        yield from board_lines(imported.item, item)
    for judgement in imported.judgements:
        if judgement.verdict is not Verdict.PASS:
            yield f"{judgement.verdict}: {name}: {judgement.detail}"
    yield "as the board reports it: only whose kit it is was checked here"
