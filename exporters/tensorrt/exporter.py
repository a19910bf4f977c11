"""The TensorRT exporter; vendor packages are imported when it works, not when it is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeship.errors import ConfigurationError
from edgeship.exporters.lowering import RUNTIME, lowered_graph
from edgeship.exporters.protocol import Lowered, Payload, Recipe, Request, Source, Tools
from edgeship.exporters.sources import module_source_problems
from edgeship.exporters.tensorrt.rules import recipe_problems
from edgeship.story import Progress, ignore_progress
from edgeship.targets.tensorrt_facts import tensorrt_facts
from edgeship.vocabulary import Format

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeship.calibration.ranges import Ranges
    from edgeship.errors import Problem
    from edgeship.targets import Target


class TensorRtExporter:
    """Graph -> a kit of ONNX files that a board builds its engines from."""

    tools = Tools(
        lower_version=2,
        emit_version=2,
        packages=("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy"),
        extra="onnx",
        stand_in=RUNTIME,
    )

    def problems(self, request: Request) -> Iterator[Problem]:
        """See `Exporter.problems`."""
        target = request.target
        where = f"edgeship.toml: targets.{target.name}.tensorrt"
        yield from module_source_problems(request.model.source, Format.TENSORRT, takes_onnx=True)
        try:
            facts = tensorrt_facts(target)
        except ConfigurationError as error:
            yield from error.problems
            return
        yield from recipe_problems(request.recipe, facts, where)

    def lower(self, source: Source, directory: Path) -> Lowered:
        """See `Exporter.lower`: the canonical Graph, as for ONNX."""
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
        """See `Exporter.emit`: graphs and `kit.json`; no engine, which only a board can build.

        What stands in for it on this host is written beside them, and is no file of the kit.
        """
        import onnx

        from edgeship.exporters.tensorrt.emission import write_kit

        assert ranges is not None  # the pipeline observes before it emits a kit
        return write_kit(onnx.load(lowered.file), ranges, lowered, recipe, target, directory)
