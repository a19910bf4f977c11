"""The ONNX exporter; vendor packages are imported when it works, not when it is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.exporters.lowering import lowered_graph
from edgeship.exporters.onnx.rules import recipe_problems
from edgeship.exporters.protocol import Lowered, Payload, Recipe, Request, Source, Tools
from edgeship.exporters.sources import module_source_problems
from edgeship.story import Progress, ignore_progress
from edgeship.vocabulary import Format, Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeship.calibration.ranges import Ranges
    from edgeship.errors import Problem
    from edgeship.targets import Target

_MODEL_NAME: Final = "model.onnx"


class OnnxExporter:
    """Graph -> `model.onnx` for ONNX Runtime."""

    tools = Tools(
        lower_version=2,
        emit_version=6,
        packages=("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy"),
        extra="onnx",
    )

    def problems(self, request: Request) -> Iterator[Problem]:
        """See `Exporter.problems`."""
        target = request.target
        where = f"edgeship.toml: targets.{target.name}.onnx"
        yield from module_source_problems(request.model.source, Format.ONNX, takes_onnx=True)
        yield from recipe_problems(request.recipe, where)

    def lower(self, source: Source, directory: Path) -> Lowered:
        """See `Exporter.lower`: the canonical Graph."""
        return lowered_graph(source, directory)

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
        """See `Exporter.emit`: one file, inputs and outputs in float32."""
        import onnx

        from edgeship.exporters.onnx.emission import emission
        from edgeship.exporters.onnx.shipping import write_shipping_file

        made = emission(onnx.load(lowered.file), ranges, recipe, target)
        requires = write_shipping_file(made.proto, directory / _MODEL_NAME)
        return Payload(
            files={_MODEL_NAME: Role.MODEL},
            contract=lowered.contract,
            requires=requires,
            notes=tuple(made.notes),
            output_steps=made.output_steps,
        )
