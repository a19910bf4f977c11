"""Emission: a Graph in the precision of a recipe, and what is to be said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeship.exporters.half import half_graph, output_rounding
from edgeship.exporters.onnx.census import float_nodes, output_steps
from edgeship.exporters.onnx.dynamic import dynamic_graph, dynamic_notes
from edgeship.exporters.onnx.half_notes import half_notes
from edgeship.exporters.onnx.qdq import quantized_graph
from edgeship.exporters.onnx.rules import kept_nodes
from edgeship.vocabulary import Format

if TYPE_CHECKING:
    import onnx

    from edgeship.calibration.ranges import Ranges
    from edgeship.exporters.protocol import Recipe
    from edgeship.targets import FormatFacts, Target


@dataclass(frozen=True, kw_only=True)
class Emission:
    """A model in its precision; `notes` and `output_steps` as in `Payload`."""

    proto: onnx.ModelProto
    notes: Sequence[str] = ()
    output_steps: Mapping[str, float] = field(default_factory=dict)


def emission(
    proto: onnx.ModelProto, ranges: Ranges | None, recipe: Recipe, target: Target
) -> Emission:
    """The model as `recipe` asks for it.

    Args:
        proto: A Graph; not modified.
        ranges: Of the tensors in `observed_tensors`, where the precision needs them; for fp16 the
            least and the largest values.
        recipe: One of the exporter's precisions, and its rules.
        target: Whose CPU it is for.

    Raises:
        ExportFailed: It cannot be made.
        ConfigurationError: A rule matches no module.
    """
    facts = target.formats[Format.ONNX]
    match recipe.precision:
        case "fp16":
            assert ranges is not None  # the pipeline observes before it emits fp16
            half = half_graph(proto, ranges, kept_nodes(proto, recipe))
            steps = output_rounding(proto, ranges)
            return Emission(proto=half.proto, notes=half_notes(proto, half), output_steps=steps)
        case "int8":
            assert ranges is not None  # the pipeline observes before it emits int8
            return _static_graph(proto, ranges, recipe, facts)
        case "dynamic":
            kept = kept_nodes(proto, recipe)
            result = dynamic_graph(proto, reduce_range=facts.reduce_range, kept=kept)
            notes = [*dynamic_notes(proto, result), *_range_notes(facts)]
            return Emission(proto=result, notes=notes)
        case _:
            return Emission(proto=proto)


def _static_graph(
    proto: onnx.ModelProto, ranges: Ranges, recipe: Recipe, facts: FormatFacts
) -> Emission:
    quantized = quantized_graph(
        proto,
        ranges,
        is_activation_signed=facts.activation_type == "int8",
        reduce_range=facts.reduce_range,
        kept=kept_nodes(proto, recipe),
    )
    notes = _range_notes(facts)
    in_float = Counter(node.op_type for node in float_nodes(quantized))
    if in_float:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(in_float.items()))
        notes.append(f"computed in float32: {counted}")
    if ranges.dead:
        notes.append(f"zero on all representative data: {', '.join(sorted(ranges.dead))}")
    return Emission(proto=quantized, notes=notes, output_steps=output_steps(quantized))


def _range_notes(facts: FormatFacts) -> list[str]:
    if not facts.reduce_range:
        return []
    return ["weights in 7 bits: this CPU may lack VNNI, and its 8-bit products saturate"]
