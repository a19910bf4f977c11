"""Stage keys: everything that the result of each stage depends on, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgeship.evidence import describe_host
from edgeship.exporters.protocol import Exporter
from edgeship.pipeline.cache import StageKey, stage_key
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.equalize_keys import equalize_key, is_rewritten
from edgeship.pipeline.key_facts import card_facts, host_runtimes, model_facts
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.workspace import Workspace, package_versions
from edgeship.targets import target_facts
from edgeship.vocabulary import Format

_OBSERVE_VERSION: Final = 3
_AUDIT_VERSION: Final = 2
_GOLDEN_VERSION: Final = 2
_REFERENCE_VERSION: Final = 2
_EVALUATE_VERSION: Final = 2
_SPEED_VERSION: Final = 2
_SAMPLE_PACKAGES: Final = ("numpy", "pillow")
_TARGETED: Final = frozenset({"int8", "dynamic"})
"""Precisions whose files depend on facts of the target, whatever the format."""
_TARGETED_FORMATS: Final = frozenset({Format.TFLITE, Format.TENSORRT})
_CARRYING: Final = frozenset({Format.TFLITE})
"""Formats whose files hold a card."""


@dataclass(frozen=True, kw_only=True)
class ArtifactKeys:
    """Keys of the stages of one artifact; None where the stage is not needed.

    Attributes:
        plain: Of the lowering of the model as it is; `lower` is the same where no rewrite was kept.
        evaluate: By runtime: of each that the target lists and this host has.
    """

    equalize: StageKey | None
    plain: StageKey
    lower: StageKey
    observe: StageKey | None
    audit: StageKey | None
    emit: StageKey
    golden: StageKey
    reference: StageKey | None
    evaluate: Mapping[str, StageKey]
    speed: StageKey | None

    def all(self) -> list[StageKey]:
        """Every key that there is."""
        keys = (
            self.equalize,
            self.plain if self.speed is not None else None,
            self.lower,
            self.observe,
            self.audit,
            self.emit,
            self.golden,
            self.reference,
            *self.evaluate.values(),
            self.speed,
        )
        return list(dict.fromkeys(key for key in keys if key is not None))


def artifact_keys(
    item: PlannedArtifact,
    exporter: Exporter,
    workspace: Workspace,
    data: ProjectData,
    imports: Mapping[str, str],
) -> ArtifactKeys:
    """The keys of one artifact's stages; reads files' digests, imports no vendor package.

    Args:
        item: The artifact.
        exporter: Of its format.
        workspace: Of the project.
        data: Of the project.
        imports: Digests of the project's files that the factory imported.
    """
    project = workspace.project
    tools = exporter.tools
    model = model_facts(workspace, imports)
    equalize = equalize_key(item, exporter, workspace, data, imports)
    plain = lower = _lower_key(item, exporter, model, data)
    if equalize is not None and is_rewritten(workspace.cache, equalize):
        lower = _lower_key(item, exporter, model, data, equalize=equalize.digest)
    observe = audit = None
    if item.is_calibrated:
        assert project.calibration is not None  # the plan refuses int8 without
        observe = stage_key(
            "observe",
            version=_OBSERVE_VERSION,
            lower=lower.digest,
            data=data.calibration_sha256,
            samples=project.calibration.samples,
            skips_bad=data.skips_bad,
            packages=package_versions(_SAMPLE_PACKAGES),
        )
        audit = stage_key(
            "audit",
            version=_AUDIT_VERSION,
            observe=observe.digest,
            evaluation=None if project.evaluation is None else data.evaluation_sha256,
        )
    emit = stage_key(
        "emit",
        version=tools.emit_version,
        lower=lower.digest,
        observe=None if observe is None else observe.digest,
        ranges=str(item.ranges) if item.is_calibrated else None,
        recipe=item.recipe.to_json(),
        target=dict(target_facts(item.target, item.format)) if _is_targeted(item) else None,
        card=card_facts(workspace) if item.format in _CARRYING else None,
    )
    golden = stage_key(
        "golden", version=_GOLDEN_VERSION, emit=emit.digest, probes=data.probes_sha256
    )
    reference = None
    if project.evaluation is not None:
        runs = "onnxruntime" if workspace.checkpoint.suffix == ".onnx" else "torch"
        reference = stage_key(
            "reference",
            version=_REFERENCE_VERSION,
            model=model,
            data=data.evaluation_sha256,
            skips_bad=data.skips_bad,
            packages=package_versions((runs, *_SAMPLE_PACKAGES)),
        )
    evaluate = {
        name: stage_key(
            "evaluate",
            version=_EVALUATE_VERSION,
            runtime={name: runtime_version},
            emit=emit.digest,
            golden=golden.digest,
            reference=None if reference is None else reference.digest,
            metric=None if project.evaluation is None else project.evaluation.metric,
            host=describe_host(),
        )
        for name, runtime_version in host_runtimes(item, exporter).items()
    }
    speed = None
    if item.recipe.precision != "fp32" and tools.stand_in is None:
        speed = stage_key(
            "speed",
            version=_SPEED_VERSION,
            emit=emit.digest,
            lower=plain.digest,
            probes=data.probes_sha256,
            runtimes=host_runtimes(item, exporter),
            host=describe_host(),
        )
    return ArtifactKeys(
        equalize=equalize,
        plain=plain,
        lower=lower,
        observe=observe,
        audit=audit,
        emit=emit,
        golden=golden,
        reference=reference,
        evaluate=evaluate,
        speed=speed,
    )


def _lower_key(
    item: PlannedArtifact,
    exporter: Exporter,
    model: Mapping[str, object],
    data: ProjectData,
    **rewritten: str,
) -> StageKey:
    tools = exporter.tools
    return stage_key(
        "lower",
        format=str(item.format),
        version=tools.lower_version,
        model=model,
        probes=data.probes_sha256,
        packages=package_versions(tools.packages),
        **rewritten,
    )


def _is_targeted(item: PlannedArtifact) -> bool:
    """Whether the files depend on facts of the target."""
    return item.format in _TARGETED_FORMATS or item.recipe.precision in _TARGETED
