"""Stage keys of a language model, whose stages are others than those of images and encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.evidence import describe_host
from edgeship.exporters.protocol import Exporter
from edgeship.pipeline.cache import StageKey, stage_key
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.key_facts import model_facts
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.workspace import Workspace, package_versions
from edgeship.targets import target_facts

_IMPORTANCE_VERSION: Final = 1
_CHOICE_VERSION: Final = 1
_GOLDEN_VERSION: Final = 2
_REFERENCE_VERSION: Final = 1
_EVALUATE_VERSION: Final = 1
_TEXT_PACKAGES: Final = ("torch", "transformers", "tokenizers", "llama-cpp-python")
UNWEIGHTED: Final = frozenset({"f16", "q8_0"})
"""Types that importance does not change: they have no search."""


@dataclass(frozen=True, kw_only=True)
class LanguageKeys:
    """Keys of the stages; None where a stage is not needed.

    `emit` is of the file without importance, `weighted` of that with it; `reference` of what the
    float model gives, which only a test on a board asks for.
    """

    lower: StageKey
    importance: StageKey | None
    emit: StageKey
    weighted: StageKey | None
    choose: StageKey | None
    golden: Mapping[bool, StageKey]
    evaluate: Mapping[bool, StageKey]
    reference: StageKey | None

    def all(self) -> list[StageKey]:
        """Every key that there may be; which of two files is shipped is not known before."""
        keys = (self.lower, self.importance, self.emit, self.weighted, self.choose)
        return [
            *(key for key in keys if key is not None),
            *self.golden.values(),
            *self.evaluate.values(),
        ]


def language_keys(
    item: PlannedArtifact, exporter: Exporter, workspace: Workspace, data: ProjectData
) -> LanguageKeys:
    """The keys of one artifact; reads files' digests, imports no vendor package."""
    project, tools = workspace.project, exporter.tools
    model, versions = model_facts(workspace, {}), package_versions(_TEXT_PACKAGES)
    script = item.recipe.converter
    calibration = None if project.calibration is None else data.calibration_sha256
    lower = stage_key(
        "lower",
        format=str(item.format),
        version=tools.lower_version,
        model=model,
        texts=calibration,
        converter=_script_digests(script, workspace),
        packages=package_versions(tools.packages),
    )
    importance = None
    is_searched = item.recipe.precision not in UNWEIGHTED
    if calibration is not None and is_searched and script is None:
        importance = stage_key(
            "observe",
            version=_IMPORTANCE_VERSION,
            model=model,
            texts=calibration,
            packages=versions,
        )

    def emit(importance: StageKey | None) -> StageKey:
        return stage_key(
            "emit",
            version=tools.emit_version,
            lower=lower.digest,
            observe=None if importance is None else importance.digest,
            recipe=item.recipe.to_json(),
            options=[item.recipe.is_strict, item.recipe.context],
            target=dict(target_facts(item.target, item.format)),
            memory=item.target.memory_bytes,
        )

    files = {False: emit(None)} | ({} if importance is None else {True: emit(importance)})
    choose = None
    if True in files:
        choose = stage_key(
            "choose",
            version=_CHOICE_VERSION,
            files=[key.digest for key in files.values()],
            texts=calibration,
            packages=versions,
        )
    golden = {
        is_weighted: stage_key(
            "golden", version=_GOLDEN_VERSION, emit=key.digest, texts=data.probes_sha256
        )
        for is_weighted, key in files.items()
    }
    evaluate = {
        is_weighted: stage_key(
            "evaluate",
            version=_EVALUATE_VERSION,
            emit=key.digest,
            data=None if project.evaluation is None else data.evaluation_sha256,
            metric=None if project.evaluation is None else project.evaluation.metric,
            packages=versions,
            host=describe_host(),
        )
        for is_weighted, key in files.items()
    }
    reference = None
    if project.evaluation is not None:
        reference = stage_key(
            "reference",
            version=_REFERENCE_VERSION,
            lower=lower.digest,
            data=data.evaluation_sha256,
            packages=versions,
        )
    return LanguageKeys(
        reference=reference,
        lower=lower,
        importance=importance,
        emit=files[False],
        weighted=files.get(True),
        choose=choose,
        golden=golden,
        evaluate=evaluate,
    )


def _script_digests(script: Path | None, workspace: Workspace) -> list[str] | None:
    """Of everything that the converter's script consists of: it is a stub over a package."""
    if script is None:
        return None
    from edgeship.exporters.gguf.converter import converter_files

    return [workspace.digests.sha256(file) for file in converter_files(script)]
