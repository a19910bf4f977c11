"""Importing: what a board reported becomes evidence of the kit that it was built from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeship.budget import Judgement
from edgeship.errors import EdgeshipError, ExitCode, IntegrityRefused, Problem
from edgeship.pipeline.outcome import judge
from edgeship.pipeline.plan import Plan, PlannedArtifact
from edgeship.pipeline.stand import Built, keep_evidence, read_built
from edgeship.pipeline.ways import open_ways
from edgeship.story import Story
from edgeship.tools.engine_report import EngineReport, read_engine_report


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A report that was taken: of which artifact, and what the budget says of it now."""

    item: PlannedArtifact
    report: EngineReport
    judgements: tuple[Judgement, ...]

    @property
    def exit_codes(self) -> list[ExitCode]:
        """Every code that applies."""
        return [judgement.exit_code for judgement in self.judgements]


def import_report(plan: Plan, file: Path, story: Story) -> Imported:
    """Keep what a board reported in its artifact's manifest; only whose it is can be checked.

    A report takes the place of what the same board reported of the same graph before. Of its
    engines the one that serves there is judged; the others are kept, and shown.

    Args:
        plan: Of the project.
        file: engine_report.json, as it came back.
        story: Told if another edgeship is waited for.

    Raises:
        IntegrityRefused: No report, or one of a kit that is none of this project's now.
    """
    report = read_engine_report(file)
    with open_ways(plan, story) as ways:
        found, absent = read_built(plan.artifacts, ways)
        built = _whose(report, found, absent, file)
        artifact = built.artifact
        for evidence in report.evidence:
            own = replace(evidence, data_sha256=ways.data.probes_sha256)
            if report.recommended not in (None, evidence.where["graph"]):
                own = own.set_aside()
            artifact = keep_evidence(artifact, own)
        judgements = judge(plan.project, built.item, artifact)
    return Imported(item=built.item, report=report, judgements=judgements)


def _whose(
    report: EngineReport,
    found: list[Built],
    absent: list[tuple[PlannedArtifact, EdgeshipError]],
    file: Path,
) -> Built:
    for built in found:
        if built.artifact.manifest.artifact_id == report.artifact_id:
            return built
    kits = [f"{item.item.name} {item.artifact.manifest.artifact_id[:12]}" for item in found]
    kits += [f"{item.name} (not usable)" for item, _ in absent]
    problem = Problem(
        where=f"{file}: artifact_id",
        what="the report is of another build than what is here",
        expected=", ".join(kits) or "an artifact that was built",
        found=report.artifact_id[:12],
        remedy="take the kit that is here to the board, or build the one that was there again",
    )
    raise IntegrityRefused(problem)
