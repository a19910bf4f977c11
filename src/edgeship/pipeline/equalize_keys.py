"""Equalize keys: what the choice of rewrites depends on, and what depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgeship.exporters.protocol import Exporter
from edgeship.pipeline.cache import StageCache, StageKey, stage_key
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.equalized import PROGRAM_NAME
from edgeship.pipeline.key_facts import host_runtimes, model_facts
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.workspace import Workspace, package_versions
from edgeship.targets import target_facts

_VERSION: Final = 1
_SAMPLE_PACKAGES: Final = ("numpy", "pillow")


def equalize_key(
    item: PlannedArtifact,
    exporter: Exporter,
    workspace: Workspace,
    data: ProjectData,
    imports: Mapping[str, str],
) -> StageKey | None:
    """The key of the choice of rewrites; arguments as in `artifact_keys`."""
    project = workspace.project
    if not item.is_equalized:
        return None
    assert project.calibration is not None  # the plan refuses integers without
    tools = exporter.tools
    return stage_key(
        "equalize",
        version=_VERSION,
        passes=str(item.equalize),
        model=model_facts(workspace, imports),
        data=data.calibration_sha256,
        samples=project.calibration.samples,
        skips_bad=data.skips_bad,
        format=str(item.format),
        recipe=item.recipe.to_json(),
        ranges=str(item.ranges),
        target=dict(target_facts(item.target, item.format)),
        exporter=[tools.lower_version, tools.emit_version],
        runtimes=host_runtimes(item, exporter),
        packages=package_versions((*tools.packages, *_SAMPLE_PACKAGES)),
    )


def is_rewritten(cache: StageCache, equalize: StageKey) -> bool:
    """Whether the choice was made, and kept a rewrite."""
    return cache.has(equalize) and (cache.path(equalize) / PROGRAM_NAME).is_file()
