"""The stages: each takes typed values and writes its result into an empty directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.calibration.ranges import Ranges, solve_ranges
from edgeship.calibration.samples import SampleSet, select_samples
from edgeship.calibration.table import HEADER_NAME, Table, read_table, write_table
from edgeship.digests import file_sha256
from edgeship.evaluate.golden import run_case, write_golden_pack
from edgeship.exporters.protocol import (
    STAND_IN_NAME,
    Card,
    Exporter,
    Lowered,
    Payload,
    Source,
)
from edgeship.pipeline.data import Data, ProjectData
from edgeship.pipeline.observation import observe_lowered
from edgeship.pipeline.plan import PlannedArtifact
from edgeship.pipeline.workspace import package_versions
from edgeship.project import Project, RangePolicy
from edgeship.runtimes.protocol import load_runtime, runtime_package
from edgeship.story import Progress
from edgeship.vocabulary import Role

if TYPE_CHECKING:
    from edgeship.calibration.importance import Importance
    from edgeship.source.model import Model

IMPORTANCE_NAME: Final = "importance.gguf"
_LOWERED_NAME: Final = "lowered.json"
_PAYLOAD_NAME: Final = "payload.json"
_GOLDEN_NAME: Final = "files.json"


def lower(
    exporter: Exporter,
    load: Callable[[], Model],
    checkpoint: Path,
    data: ProjectData,
    directory: Path,
    converter: Path | None = None,
) -> None:
    """Model or checkpoint -> Lowered; `converter` is the recipe's."""
    source = Source(
        load=load,
        read_probes=lambda: [sample.inputs for _, sample in data.probes()],
        checkpoint=checkpoint,
        texts=data.texts(Data.CALIBRATION),
        converter=converter,
    )
    lowered = exporter.lower(source, directory)
    _write_json(directory / _LOWERED_NAME, lowered.to_json())


def read_lowered(directory: Path) -> Lowered:
    """What `lower` wrote."""
    return Lowered.from_json(json.loads((directory / _LOWERED_NAME).read_bytes()), directory)


def observe_samples(
    project: Project, lowered: Lowered, samples: SampleSet, directory: Path, progress: Progress
) -> None:
    """Lowered x representative data -> Statistics."""
    assert project.calibration is not None  # the plan refuses calibrated formats without
    chosen = select_samples(samples.samples, project.calibration.samples)
    inputs = project.model.input_specs()
    statistics = observe_lowered(lowered, inputs, samples, chosen, progress)
    table = Table(
        observed_sha256=lowered.sha256,
        sample_digests=[samples.samples[index].digest for index in chosen],
        preprocessing={
            spec.name: spec.preprocess.to_json()
            for spec in lowered.contract.inputs
            if spec.preprocess is not None
        },
        tools=package_versions((runtime_package(lowered.runtime), "numpy", "pillow")),
        statistics=statistics,
    )
    write_table(directory, table)


def solve(lowered: Lowered, statistics: Path, policy: RangePolicy) -> Ranges:
    """Statistics + policy -> Ranges."""
    table = read_table(statistics, observed_sha256=lowered.sha256)
    return solve_ranges(table.statistics, policy)


def table_sha256(directory: Path) -> str:
    """Identity of a table of statistics, by its header, or of an importance file."""
    importance = directory / IMPORTANCE_NAME
    return file_sha256(importance if importance.is_file() else directory / HEADER_NAME)


def emit(
    exporter: Exporter,
    lowered: Lowered,
    ranges: Ranges | Importance | None,
    item: PlannedArtifact,
    card: Card,
    checkpoint: Path,
    directory: Path,
    progress: Progress,
) -> None:
    """Lowered + Ranges or Importance + Recipe + Target -> files; card and checkpoint if needed."""
    named = replace(lowered, card=card, checkpoint=checkpoint)
    recipe, target = item.recipe, item.target
    payload = exporter.emit(named, ranges, recipe, target, directory, progress=progress)
    _write_json(directory / _PAYLOAD_NAME, payload.to_json())


def read_payload(directory: Path) -> Payload:
    """What `emit` wrote."""
    return Payload.from_json(json.loads((directory / _PAYLOAD_NAME).read_bytes()))


def golden(
    model: Model, emitted: Path, data: ProjectData, directory: Path, stand_in: str | None = None
) -> None:
    """Files -> golden pack: a few samples through the artifact and the float model.

    `stand_in` is the runtime of what stands in for the artifact; see `Tools.stand_in`.
    """
    payload = read_payload(emitted)
    runtime = stand_in or payload.requires.any_of[0].runtime
    session = load_runtime(runtime).open(host_file(emitted, payload, stand_in))
    cases = [
        run_case(
            name,
            sample,
            model_inputs=model.contract.inputs,
            contract=payload.contract,
            artifact=session.run,
            reference=model.run,
        )
        for name, sample in data.probes()
    ]
    names = write_golden_pack(directory, cases, payload.contract, output_steps=payload.output_steps)
    write_golden_names(directory, names)


def write_golden_names(directory: Path, names: list[str]) -> None:
    """Keep the names of a golden pack's files for `read_golden`."""
    _write_json(directory / _GOLDEN_NAME, names)


def read_golden(directory: Path) -> list[str]:
    """Names of the files that `golden` wrote."""
    names: list[str] = json.loads((directory / _GOLDEN_NAME).read_bytes())
    return names


def host_file(emitted: Path, payload: Payload, stand_in: str | None) -> Path:
    """What runs on this host: the file of role `model`, or what stands in for it."""
    return model_file(emitted, payload) if stand_in is None else emitted / STAND_IN_NAME


def model_file(emitted: Path, payload: Payload) -> Path:
    """The file of role `model`, the first where there are several."""
    name = next(name for name, role in payload.files.items() if role is Role.MODEL)
    return emitted / name


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8")
