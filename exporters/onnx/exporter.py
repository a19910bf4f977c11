"""The ONNX exporter; vendor packages are imported when it works, not when it is looked up."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, ExportFailed, Problem, closest_names
from edgeship.exporters.protocol import Lowered, Payload, Recipe, Request, Source, Tools
from edgeship.project import FactorySource, FileSource
from edgeship.source.encoder import architecture_of, is_causal
from edgeship.vocabulary import Format, Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import onnx

    from edgeship.calibration.ranges import Ranges
    from edgeship.targets import Target

_MODEL_NAME: Final = "model.onnx"
_GRAPH_NAME: Final = "graph.onnx"
_MADE: Final = ("fp32", "int8")
_TOLERANCE: Final = 1e-4
"""Largest difference from the torch module, relative to the output's largest magnitude; the
exporter's own was 4e-6 for ResNet-20 and 2e-7 for MiniLM (measured)."""


class OnnxExporter:
    """Graph -> `model.onnx` for ONNX Runtime."""

    tools = Tools(
        lower_version=1,
        emit_version=4,
        packages=("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy"),
        extra="onnx",
    )

    def problems(self, request: Request) -> Iterator[Problem]:
        """See `Exporter.problems`."""
        target = request.target
        where = f"edgeship.toml: targets.{target.name}.onnx"
        yield from _source_problems(request.model.source)
        precisions = {request.recipe.precision, *(rule.precision for rule in request.recipe.rules)}
        for precision in sorted(precisions.difference(_MADE)):
            yield Problem(
                where=where,
                what=f"precision {precision!r} cannot be made in this version",
                expected=", ".join(_MADE),
                remedy="choose one of these",
            )
        for rule in request.recipe.rules:
            if rule.precision == "int8" and request.recipe.precision != "int8":
                yield Problem(
                    where=f"{where}.rules",
                    what="an fp32 file cannot hold int8 layers",
                    found=f"{rule.match} -> int8",
                    remedy='make precisions = ["int8"] and keep the other layers in fp32',
                )

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

        from edgeship.exporters.onnx.census import output_steps
        from edgeship.exporters.onnx.shipping import write_shipping_file

        proto = onnx.load(lowered.file)
        notes: list[str] = []
        steps: dict[str, float] = {}
        if recipe.precision == "int8":
            assert ranges is not None  # the pipeline observes before it emits int8
            proto, notes = _quantize(proto, ranges, recipe, target)
            steps = output_steps(proto)
        requires = write_shipping_file(proto, directory / _MODEL_NAME)
        return Payload(
            files={_MODEL_NAME: Role.MODEL},
            contract=lowered.contract,
            requires=requires,
            notes=tuple(notes),
            output_steps=steps,
        )


def _source_problems(source: FactorySource | FileSource) -> Iterator[Problem]:
    """DESIGN, "What becomes what": a causal language model becomes gguf, and nothing else."""
    if isinstance(source, FactorySource):
        return
    where = "edgeship.toml: model"
    if source.kind != "hf":
        yield Problem(
            where=where,
            what=f"a source of kind {source.kind!r} cannot become onnx yet",
            expected="factory and weights, or hf",
            remedy="name a factory that builds the module, and its weights",
        )
        return
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


def kept_nodes(proto: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """Names of the nodes that the recipe's rules keep in fp32.

    Raises:
        ConfigurationError: A rule matches no module.
    """
    from edgeship.source.graph import module_of_node

    modules = {node.name: module_of_node(node) for node in proto.graph.node}
    precision = dict.fromkeys(modules, recipe.precision)
    for rule in recipe.rules:
        matched = [node for node, module in modules.items() if fnmatchcase(module, rule.match)]
        if not matched:
            raise ConfigurationError(_unmatched(rule.match, sorted({*modules.values()} - {""})))
        precision.update(dict.fromkeys(matched, rule.precision))
    return [node for node, chosen in precision.items() if chosen == "fp32"]


def _quantize(
    proto: onnx.ModelProto, ranges: Ranges, recipe: Recipe, target: Target
) -> tuple[onnx.ModelProto, list[str]]:
    from edgeship.exporters.onnx.census import float_nodes
    from edgeship.exporters.onnx.qdq import quantized_graph

    facts = target.formats[Format.ONNX]
    kept = kept_nodes(proto, recipe)
    quantized = quantized_graph(
        proto,
        ranges,
        is_activation_signed=facts.activation_type == "int8",
        reduce_range=facts.reduce_range,
        kept=kept,
    )
    notes = []
    if facts.reduce_range:
        notes.append("weights in 7 bits: this CPU may lack VNNI, and its 8-bit products saturate")
    in_float = Counter(node.op_type for node in float_nodes(quantized))
    if in_float:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(in_float.items()))
        notes.append(f"computed in float32: {counted}")
    if ranges.dead:
        notes.append(f"zero on all representative data: {', '.join(sorted(ranges.dead))}")
    return quantized, notes


def _prove(file: Path, source: Source) -> None:
    """Run the probes through torch and ONNX Runtime and compare every output.

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
                    what="the exported graph computes something else than the torch module",
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


def _unmatched(match: str, modules: list[str]) -> Problem:
    close = closest_names(match, modules)
    return Problem(
        where=f"edgeship.toml: rule {match!r}",
        what="the rule matches no module",
        expected=f"one like {', '.join((close or modules)[:5])}",
        remedy="correct the glob, or remove the rule",
    )
