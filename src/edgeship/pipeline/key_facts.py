"""Key facts: what several keys of stages have in common."""

from __future__ import annotations

from collections.abc import Mapping

from edgeship.exporters.protocol import Exporter
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.workspace import Workspace
from edgeship.runtimes.protocol import load_runtime


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


def card_facts(workspace: Workspace) -> dict[str, object]:
    """What a file says of itself: name and labels."""
    model = workspace.project.model
    labels = None if model.labels is None else workspace.digests.sha256(model.labels)
    return {"name": model.name, "labels": labels}


def host_runtimes(item: PlannedArtifact, exporter: Exporter) -> dict[str, str]:
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
