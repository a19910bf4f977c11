"""Stage keys: everything that the result of each stage depends on, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgeship.evidence import describe_host
from edgeship.exporters.protocol import Exporter
from edgeship.pipeline.cache import StageKey, stage_key
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.workspace import Workspace, package_versions
from edgeship.runtimes.protocol import load_runtime
from edgeship.targets import target_facts
from edgeship.vocabulary import Format

_OBSERVE_VERSION: Final = 2
_AUDIT_VERSION: Final = 1
_GOLDEN_VERSION: Final = 2
_REFERENCE_VERSION: Final = 2
_EVALUATE_VERSION: Final = 2
_SPEED_VERSION: Final = 1
_SAMPLE_PACKAGES: Final = ("numpy", "pillow")
_TARGETED: Final = frozenset({"int8", "dynamic"})
"""Precisions whose files depend on facts of the target, whatever the format."""
_TARGETED_FORMATS: Final = frozenset({Format.TFLITE, Format.TENSORRT})
_CARRYING: Final = frozenset({Format.TFLITE})
"""Formats whose files hold a card."""


@dataclass(frozen=True, kw_only=True)
class ArtifactKeys:
    """Keys of the stages of one artifact; None where the stage is not needed.

    `evaluate` is by runtime: of each that the target lists and this host has.
    """

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
            self.lower,
            self.observe,
            self.audit,
            self.emit,
            self.golden,
            self.reference,
            *self.evaluate.values(),
            self.speed,
        )
        return [key for key in keys if key is not None]


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
    versions = package_versions(tools.packages)
    model = model_facts(workspace, imports)
    lower = stage_key(
        "lower",
        format=str(item.format),
        version=tools.lower_version,
        model=model,
        probes=data.probes_sha256,
        packages=versions,
    )
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
        card=_card_facts(workspace) if item.format in _CARRYING else None,
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
        for name, runtime_version in _runtimes(item, exporter).items()
    }
    speed = None
    if item.recipe.precision != "fp32" and tools.stand_in is None:
        speed = stage_key(
            "speed",
            version=_SPEED_VERSION,
            emit=emit.digest,
            lower=lower.digest,
            probes=data.probes_sha256,
            runtimes=_runtimes(item, exporter),
            host=describe_host(),
        )
    return ArtifactKeys(
        lower=lower,
        observe=observe,
        audit=audit,
        emit=emit,
        golden=golden,
        reference=reference,
        evaluate=evaluate,
        speed=speed,
    )


def _is_targeted(item: PlannedArtifact) -> bool:
    """Whether the files depend on facts of the target."""
    return item.format in _TARGETED_FORMATS or item.recipe.precision in _TARGETED


def _card_facts(workspace: Workspace) -> dict[str, object]:
    model = workspace.project.model
    labels = None if model.labels is None else workspace.digests.sha256(model.labels)
    return {"name": model.name, "labels": labels}


def _runtimes(item: PlannedArtifact, exporter: Exporter) -> dict[str, str]:
    """Versions of the target's runtimes on this host, by name; the first one is always there.

    Where they are on boards alone, of what stands in for them.
    """
    names = [str(fact.name) for fact in item.target.formats[item.format].runtimes]
    if exporter.tools.stand_in is not None:
        names = [exporter.tools.stand_in]
    versions = {name: load_runtime(name).version() for name in names}
    first = names[0]
    return {first: versions[first] or "absent"} | {
        name: found for name, found in versions.items() if found is not None
    }


def model_facts(workspace: Workspace, imports: Mapping[str, str]) -> dict[str, object]:
    """What the float model and its contract depend on."""
    model = workspace.project.model
    return {
        "checkpoint": workspace.checkpoint_sha256(),
        "imports": dict(imports),
        "attribute": workspace.factory_name,
        "inputs": [spec.to_json() for spec in model.input_specs()],
        "labels": None if model.labels is None else model.labels.name,
        "task": None if model.task is None else str(model.task),
        "output": None if model.output is None else str(model.output),
    }
