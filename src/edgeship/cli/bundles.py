"""The results of `edgeship bundle` and `edgeship verify`."""

from __future__ import annotations

import argparse

from edgeship.cli.result import Result, command_value
from edgeship.device_tests.board_archive import archive_bytes
from edgeship.errors import ConfigurationError, ExitCode, Problem
from edgeship.pipeline.check import check
from edgeship.pipeline.plan import make_plan
from edgeship.pipeline.selection import select_artifacts
from edgeship.project_file import read_project
from edgeship.quantities import text_from_bytes
from edgeship.tools.bundle.bundle import bundle as write_bundle
from edgeship.tools.bundle.description import Judged
from edgeship.tools.verify import verify as verify_file


def bundle(arguments: argparse.Namespace) -> Result:
    """Pack what was built for a target; refuses what does not pass."""
    project = read_project(arguments.project)
    plan = select_artifacts(make_plan(project, [arguments.target]), arguments.only)
    items = []
    for outcome in check(plan):
        if outcome.error is not None:
            raise outcome.error
        assert outcome.artifact is not None  # an outcome has one of the two
        items.append(Judged(artifact=outcome.artifact, judgements=outcome.judgements))
    made = write_bundle(
        items,
        name=project.model.name,
        target=plan.artifacts[0].target,
        destination=arguments.out,
        board_archive=archive_bytes(),
    )
    return Result(
        lines=[
            f"{made.path} ({text_from_bytes(made.size_bytes)}, {len(items)} artifacts)",
            f"sha256 {made.sha256}",
            *(f"unmeasured: {line}" for line in made.unmeasured),
            f"on the board: tar -xf {made.path.name}; cd {made.path.stem}; "
            "sh install.sh --check | --install | --rollback",
        ],
        value=command_value("bundle", [])
        | {
            "path": str(made.path),
            "sha256": made.sha256,
            "size_bytes": made.size_bytes,
            "release": made.release,
            "artifacts": [item.artifact.manifest.artifact_id for item in items],
            "unmeasured": list(made.unmeasured),
        },
    )


def verify(arguments: argparse.Namespace) -> Result:
    """Whether a bundle is whole."""
    if not arguments.file.is_file():
        problem = Problem(
            where=str(arguments.file),
            what="there is no such file",
            expected="an archive that `edgeship bundle` made",
            remedy="name one that exists",
        )
        raise ConfigurationError(problem)
    problems = verify_file(arguments.file)
    code = ExitCode.INTEGRITY if problems else ExitCode.OK
    return Result(
        lines=[] if problems else [f"{arguments.file} is whole, and is what it says"],
        problems=problems,
        value=command_value("verify", [code])
        | {"file": str(arguments.file), "problems": [item.to_json() for item in problems]},
        exit_code=code,
    )
