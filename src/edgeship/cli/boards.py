"""The results of `edgeship test` and `edgeship bench`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Final

from edgeship.budget import worst_exit_code
from edgeship.cli.evidence_lines import board_lines
from edgeship.cli.result import Result, command_value, item_value, metric_cells
from edgeship.cli.telling import make_story
from edgeship.cli.timed import absence, timed
from edgeship.device_tests.bench.plan import find_plan
from edgeship.device_tests.session import devices_of
from edgeship.device_tests.smoke.result import SmokeRun
from edgeship.errors import Problem
from edgeship.pipeline.plan import make_plan
from edgeship.pipeline.selection import select_artifacts, short_name
from edgeship.pipeline.timing import run_timings
from edgeship.pipeline.trial import Trial, run_trials
from edgeship.project_file import read_project
from edgeship.quantities import text_from_bytes
from edgeship.vocabulary import Verdict

_NOTHING: Final = "-"


def test(arguments: argparse.Namespace) -> Result:
    """Run what was built on boards."""
    project = read_project(arguments.project)
    plan = select_artifacts(make_plan(project, arguments.targets), arguments.only)
    trials = run_trials(
        plan,
        devices_of(arguments.devices, project.directory, arguments.device),
        make_story(is_quiet=arguments.quiet),
        samples=arguments.samples,
        forces=arguments.force,
    )
    codes = [code for trial in trials for code in trial.exit_codes]
    problems = list(dict.fromkeys(_problems(trials)))
    return Result(
        headers=(
            "target",
            "artifact",
            "runtime",
            "place",
            "golden pack",
            "top-1 (95 % interval)",
            "float",
            "agreement",
            "cosine",
            "samples",
            "memory",
            "outcome",
        ),
        rows=[_row(trial) for trial in trials],
        lines=list(dict.fromkeys(line for trial in trials for line in _lines(trial))),
        problems=problems,
        value=command_value("test", codes)
        | {
            "trials": [_value(trial) for trial in trials],
            "problems": [problem.to_json() for problem in problems],
        },
        exit_code=worst_exit_code(codes),
    )


def bench(arguments: argparse.Namespace) -> Result:
    """Time what was built on boards."""
    project = read_project(arguments.project)
    plan = make_plan(project, arguments.targets)
    timings = run_timings(
        select_artifacts(plan, arguments.only, has_companions=True),
        devices_of(arguments.devices, project.directory, arguments.device),
        make_story(is_quiet=arguments.quiet),
        how=find_plan(arguments.plan),
        threads=arguments.threads,
        forces=arguments.force,
    )
    return timed(timings)


def _row(trial: Trial) -> tuple[str, ...]:
    head = (trial.item.target.name, short_name(trial.item))
    run, evidence = trial.run, trial.evidence
    if run is None or evidence is None:
        return (*head, trial.runtime or _NOTHING, *(_NOTHING,) * 8, absence(trial.error))
    memory = evidence.memory
    return (
        *head,
        run.title,
        str(evidence.place),
        _golden(run),
        *metric_cells(evidence),
        _NOTHING if memory is None else text_from_bytes(memory.used_bytes),
        str(run.outcome),
    )


def _golden(run: SmokeRun) -> str:
    """How many comparisons were right, of all that judge."""
    judged = [case for case in run.cases if case.is_ok is not None]
    return f"{sum(case.is_ok is True for case in judged)} of {len(judged)}" if judged else _NOTHING


def _lines(trial: Trial) -> Iterator[str]:
    """What did not go well, then what is worth knowing."""
    name = trial.item.name
    if trial.run is not None and not trial.run.is_ok:
        yield f"{trial.run.outcome}: {name}: {trial.run.sentence}"
    if trial.run is not None and trial.run.sample_message is not None:
        yield f"note: {name}: {trial.run.sample_message}"
    for judgement in trial.judgements:
        if judgement.verdict is not Verdict.PASS and judgement.quantity != "device":
            yield f"{judgement.verdict}: {name}: {judgement.detail}"
    if trial.evidence is not None:  # memory has a column
        yield from board_lines(trial.item, replace(trial.evidence, memory=None))
    for note in trial.notes:
        yield f"note: {trial.item.target.name}: {note}"


def _problems(trials: Sequence[Trial]) -> Iterator[Problem]:
    for trial in trials:
        if trial.error is not None:
            yield from trial.error.problems


def _value(trial: Trial) -> dict[str, object]:
    run, evidence, error = trial.run, trial.evidence, trial.error
    return item_value(trial.item) | {
        "runtime": trial.runtime,
        "outcome": None if run is None else str(run.outcome),
        "sentence": None if run is None else run.sentence,
        "diagnosis": None if run is None else run.diagnosis,
        "cases": [] if run is None else [asdict(case) for case in run.cases],
        "evidence": None if evidence is None else evidence.to_json(),
        "judgements": [judgement.to_json() for judgement in trial.judgements],
        "exit_code": int(worst_exit_code(trial.exit_codes)),
        "problems": [] if error is None else [problem.to_json() for problem in error.problems],
        "notes": list(trial.notes),
    }
