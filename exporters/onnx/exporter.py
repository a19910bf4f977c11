"""The ONNX exporter; vendor packages are imported when it works, not when it is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, ExportFailed, Problem
from edgeship.exporters.onnx.rules import recipe_problems
from edgeship.exporters.protocol import Lowered, Payload, Recipe, Request, Source, Tools
from edgeship.project import FactorySource, FileSource
from edgeship.source.encoder import architecture_of, is_causal
from edgeship.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from edgeship.calibration.ranges import Ranges
    from edgeship.targets import Target

_MODEL_NAME: Final = "model.onnx"
_GRAPH_NAME: Final = "graph.onnx"
_TOLERANCE: Final = 1e-4
"""Largest difference from the torch module, relative to the output's largest magnitude; the
exporter's own was 4e-6 for ResNet-20 and 2e-7 for MiniLM (measured)."""


class OnnxExporter:
    """Graph -> `model.onnx` for ONNX Runtime."""

    tools = Tools(
        lower_version=2,
        emit_version=5,
        packages=("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy"),
        extra="onnx",
    )

    def problems(self, request: Request) -> Iterator[Problem]:
        """See `Exporter.problems`."""
        target = request.target
        where = f"edgeship.toml: targets.{target.name}.onnx"
        yield from _source_problems(request.model.source)
        yield from recipe_problems(request.recipe, where)

    def lower(self, source: Source, directory: Path) -> Lowered:
        """See `Exporter.lower`: the canonical Graph."""
        import onnx

        from edgeship.exporters.onnx.activations import observed_tensors
        from edgeship.exporters.onnx.shipping import RUNTIME
        from edgeship.source.graph import graph_from_model

        graph = graph_from_model(source.model, directory / _GRAPH_NAME)
        _prove(graph.file, source)
        return Lowered(
            file=graph.file,
            sha256=graph.sha256,
            contract=source.model.contract,
            runtime=RUNTIME,
            observed=observed_tensors(onnx.load(graph.file)),
            notes=source.model.notes,
        )

    def emit(
        self,
        lowered: Lowered,
        ranges: Ranges | None,
        recipe: Recipe,
        target: Target,
        directory: Path,
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


def _source_problems(source: FactorySource | FileSource) -> Iterator[Problem]:
    """DESIGN, "What becomes what": a causal language model becomes gguf, and nothing else."""
    if isinstance(source, FactorySource) or source.kind != "hf":
        return
    where = "edgeship.toml: model"
    try:
        is_gguf = is_causal(source.path)
    except ConfigurationError as error:
        yield from error.problems
        return
    if is_gguf:
        yield Problem(
            where=where,
            what="a causal language model cannot become onnx here",
            expected="an encoder",
            found=architecture_of(source.path),
            remedy='choose formats = ["gguf"]',
        )


def _prove(file: Path, source: Source) -> None:
    """Run the probes through the model and the Graph and compare every output.

    Raises:
        ExportFailed: They differ by more than 1e-4 of the output's largest magnitude.
    """
    from edgeship.exporters.onnx.shipping import RUNTIME
    from edgeship.runtimes.protocol import load_runtime

    session = load_runtime(RUNTIME).open(file)
    for index, inputs in enumerate(source.probes):
        expected = source.model.run(inputs)
        found = session.run(inputs)
        for name, values in expected.items():
            difference = _relative_difference(values, found[name])
            if not difference <= _TOLERANCE:
                problem = Problem(
                    where=f"graph: output {name!r}, sample {index}",
                    what="the exported graph computes something else than the model",
                    expected=f"a difference of at most {_TOLERANCE:g} of the largest magnitude",
                    found=f"{difference:.2g}",
                    remedy="look for randomness or data-dependent branches in the module",
                )
                raise ExportFailed(problem)


def _relative_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference over the largest expected magnitude; NaN if either holds NaN."""
    import numpy as np

    wanted = expected.astype(np.float64)  # booleans and unsigned integers cannot be subtracted
    scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
    return float(np.abs(wanted - found).max(initial=0.0)) / scale
