"""The commands that make and judge the artifacts of a project."""

from __future__ import annotations

import argparse

from edgeship.cli import result
from edgeship.cli.result import Result
from edgeship.cli.telling import make_story
from edgeship.pipeline.build import build as build_plan
from edgeship.pipeline.check import check as check_plan
from edgeship.pipeline.plan import Plan, make_plan
from edgeship.pipeline.proposal import Answers, propose_project
from edgeship.pipeline.status import plan_status
from edgeship.project_file import read_project


def init(arguments: argparse.Namespace) -> Result:
    """Write a project file from a first build."""
    story = make_story(is_quiet=arguments.quiet)
    first = propose_project(arguments.project, _answers_of(arguments), story)
    return result.judged("init", first.outcomes, stages_run=first.stages_run)


def plan(arguments: argparse.Namespace) -> Result:
    """What a build would make."""
    planned = _plan_of(arguments)
    return result.planned(planned, plan_status(planned))


def build(arguments: argparse.Namespace) -> Result:
    """Make what is not there yet, and judge it."""
    story = make_story(is_quiet=arguments.quiet)
    built = build_plan(_plan_of(arguments), story, skips_bad=arguments.skip_bad_samples)
    return result.judged("build", built.outcomes, stages_run=built.stages_run)


def check(arguments: argparse.Namespace) -> Result:
    """Judge what was built."""
    return result.judged("check", check_plan(_plan_of(arguments)))


def _plan_of(arguments: argparse.Namespace) -> Plan:
    return make_plan(read_project(arguments.project), arguments.targets)


def _answers_of(arguments: argparse.Namespace) -> Answers:
    """What the user said of the project."""
    return Answers(
        source=arguments.source,
        weights=arguments.weights,
        shape=arguments.shape,
        mean=arguments.mean,
        std=arguments.std,
        length=arguments.length,
        labels=arguments.labels,
        calibration=arguments.calibration,
        evaluation=arguments.evaluation,
        metric=arguments.metric,
        targets=tuple(arguments.target),
    )
