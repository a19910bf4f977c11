"""`edgeship`: runs one command and returns its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeship.cli.arguments import make_parser
from edgeship.errors import EdgeshipError, ExitCode

if TYPE_CHECKING:
    import argparse

    from edgeship.cli.result import Result


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
    from edgeship.cli import result
    from edgeship.cli.catalogue import catalogue
    from edgeship.cli.doctor import doctor
    from edgeship.cli.init import answers_of
    from edgeship.cli.inspect import inspect

    if arguments.command == "targets":
        return catalogue(arguments.name)
    if arguments.command == "inspect":
        return inspect(arguments.checkpoint, teacher=arguments.teacher)

    if arguments.command == "doctor":
        return doctor(arguments.project)

    from edgeship.cli.telling import make_story
    from edgeship.pipeline.build import build
    from edgeship.pipeline.check import check
    from edgeship.pipeline.plan import make_plan
    from edgeship.pipeline.proposal import propose_project
    from edgeship.pipeline.status import plan_status
    from edgeship.project_file import read_project

    story = make_story(is_quiet=arguments.quiet)
    if arguments.command == "init":
        first = propose_project(arguments.project, answers_of(arguments), story)
        return result.judged("init", first.outcomes, stages_run=first.stages_run)
    plan = make_plan(read_project(arguments.project), arguments.targets)
    if arguments.command == "plan":
        return result.planned(plan, plan_status(plan))
    if arguments.command == "check":
        return result.judged("check", check(plan))
    built = build(plan, story, skips_bad=arguments.skip_bad_samples)
    return result.judged("build", built.outcomes, stages_run=built.stages_run)
