"""The TFLite exporter; vendor packages are imported when it works, not when it is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import edgeship
from edgeship.artifact import Requirements
from edgeship.digests import file_sha256
from edgeship.exporters.protocol import Lowered, Payload, Recipe, Request, Source, Tools
from edgeship.exporters.sources import module_source_problems
from edgeship.exporters.tflite.associated import label_problems
from edgeship.exporters.tflite.rules import recipe_problems
from edgeship.story import Progress, ignore_progress
from edgeship.vocabulary import Format, Layout, Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeship.calibration.ranges import Ranges
    from edgeship.errors import Problem
    from edgeship.exporters.tflite.flatbuffer import ModelT
    from edgeship.targets import Target

_MODEL_NAME: Final = "model.tflite"
_GRAPH_NAME: Final = "graph.tflite"
_RUNTIME: Final = "litert"


class TfliteExporter:
    """Torch module -> `model.tflite` for LiteRT."""

    tools = Tools(
        lower_version=2,
        emit_version=2,
        packages=(
            "litert-torch",
            "ai-edge-quantizer",
            "ai-edge-litert",
            "torch",
            "numpy",
            "flatbuffers",
        ),
        extra="tflite",
    )

    def problems(self, request: Request) -> Iterator[Problem]:
        """See `Exporter.problems`."""
        yield from module_source_problems(request.model.source, Format.TFLITE, takes_onnx=False)
        where = f"edgeship.toml: targets.{request.target.name}.tflite"
        yield from recipe_problems(request.recipe, where)
        labels = request.model.labels
        if labels is not None and labels.is_file():
            lines = labels.read_text(encoding="utf-8").splitlines()
            yield from label_problems(lines, len(lines), str(labels))

    def lower(self, source: Source, directory: Path) -> Lowered:
        """See `Exporter.lower`: the float file, images channel-last."""
        from edgeship.exporters.proof import prove
        from edgeship.exporters.tflite.contracts import file_contract
        from edgeship.exporters.tflite.conversion import convert
        from edgeship.exporters.tflite.divisions import divide_by_roots
        from edgeship.exporters.tflite.flatbuffer import write_model
        from edgeship.exporters.tflite.lifetimes import outlive_sources
        from edgeship.exporters.tflite.masks import reshape_gathers
        from edgeship.exporters.tflite.naming import with_names
        from edgeship.exporters.tflite.transposes import remove_transposes
        from edgeship.exporters.tflite.versions import set_versions
        from edgeship.runtimes.adapter import FloatSession
        from edgeship.runtimes.protocol import load_runtime

        model = source.model
        tables = with_names(convert(model), model.contract)
        reshape_gathers(tables)
        divide_by_roots(tables)
        remove_transposes(tables)
        outlive_sources(tables)
        set_versions(tables)
        file = directory / _GRAPH_NAME
        file.write_bytes(write_model(tables))
        contract = file_contract(model.contract, tables)
        session = load_runtime(_RUNTIME).open(file)
        prove(FloatSession(session, model.contract.inputs, contract), source, where="graph")
        return Lowered(
            file=file,
            sha256=file_sha256(file),
            contract=contract,
            runtime=_RUNTIME,
            observed=float_activations(tables),
            layout=Layout.NHWC,
            notes=model.notes,
        )

    def emit(
        self,
        lowered: Lowered,
        ranges: Ranges | None,
        recipe: Recipe,
        target: Target,
        directory: Path,
        *,
        progress: Progress = ignore_progress,  # noqa: ARG002 - it takes seconds
    ) -> Payload:
        """See `Exporter.emit`: one file, with its metadata and the labels inside."""
        from edgeship.exporters.tflite.compatibility import runtime_compatibility
        from edgeship.exporters.tflite.contracts import file_contract
        from edgeship.exporters.tflite.emission import emission
        from edgeship.exporters.tflite.flatbuffer import write_model
        from edgeship.exporters.tflite.memory import activation_bytes
        from edgeship.exporters.tflite.metadata import app_notes, with_metadata

        runtimes = target.formats[Format.TFLITE].runtimes
        made = emission(lowered.file.read_bytes(), ranges, recipe, runtimes)
        contract = file_contract(lowered.contract, made.tables)
        found = runtime_compatibility(made.tables, runtimes)
        content = with_metadata(
            write_model(made.tables),
            contract,
            name=lowered.card.name,
            labels=lowered.card.labels,
            identity={
                "edgeship": edgeship.__version__,
                "format": str(Format.TFLITE),
                "precision": recipe.precision,
                "lowered_sha256": lowered.sha256,
            },
        )
        (directory / _MODEL_NAME).write_bytes(content)
        return Payload(
            files={_MODEL_NAME: Role.MODEL},
            contract=contract,
            requires=Requirements(
                any_of=found.any_of, memory_bytes=len(content) + activation_bytes(made.tables)
            ),
            notes=(*made.notes, *found.notes, *app_notes(contract)),
            output_steps={},
        )


def float_activations(tables: ModelT) -> tuple[str, ...]:
    """Names of the float32 tensors that are no constants: inputs, outputs and all between."""
    from edgeship.exporters.tflite.flatbuffer import is_constant, tensor_name, type_name

    return tuple(
        tensor_name(tensor)
        for graph in tables.subgraphs
        for tensor in graph.tensors
        if type_name(tensor) == "FLOAT32" and not is_constant(tables, tensor)
    )
