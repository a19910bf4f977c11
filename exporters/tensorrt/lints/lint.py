"""Lint: every rule over one graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from edgeship.exporters.tensorrt.lints import form, layers, pairs, parameters, support
from edgeship.exporters.tensorrt.lints.finding import Check, Finding
from edgeship.exporters.tensorrt.lints.view import MARKS, View, view_of
from edgeship.targets.tensorrt_facts import TensorRtFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

_PARSERS: Final = ((8, 2), (8, 4), (8, 5), (8, 6), (10, 1))
"""Releases whose QuantDequantLinearHelper was read."""
_HOPS: Final = 4
"""From a Q of an activation over its DQ and a Pad to the layer that it is for."""


class Basis(StrEnum):
    """What a rule rests on."""

    TABLE = "table"
    PARSER = "parser"
    ADVICE = "NVIDIA's advice on Q/DQ placement"
    KIT = "form of a kit"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A check, and what it rests on."""

    check: Check
    basis: Basis


def _rules(basis: Basis, **checks: Check) -> dict[str, Rule]:
    return {
        name.replace("_", "-"): Rule(check=check, basis=basis) for name, check in checks.items()
    }


RULES: Final[Mapping[str, Rule]] = {
    **_rules(
        Basis.TABLE,
        opset=support.opset,
        int8_absent=support.int8_absent,
        operator=support.operators,
        operator_type=support.operator_types,
        data_type=support.data_types,
        restriction=support.restrictions,
        int64_value=support.int64_values,
        int64_edge=support.int64_edges,
        bool_edge=support.bool_edges,
    ),
    **_rules(
        Basis.PARSER,
        zero_point_missing=parameters.zero_point_missing,
        zero_point_type=parameters.zero_point_type,
        zero_point_nonzero=parameters.zero_point_nonzero,
        zero_point_count=parameters.zero_point_count,
        scale_not_constant=parameters.scale_not_constant,
        scale_not_positive=parameters.scale_not_positive,
        scale_subnormal=parameters.scale_subnormal,
        scale_type=parameters.scale_type,
        scale_count=parameters.scale_count,
        axis_missing=parameters.axis_missing,
        axis_out_of_range=parameters.axis_out_of_range,
        per_channel_activation=parameters.per_channel_activation,
        quantized_bias=layers.quantized_bias,
    ),
    **_rules(
        Basis.ADVICE,
        unequal_pair=parameters.unequal_pair,
        quantized_output=layers.quantized_output,
        residual_add=layers.residual_add,
        weight_alone=layers.weight_alone,
        weight_granularity=layers.weight_granularity,
        weight_axis=layers.weight_axis,
        weight_code=layers.weight_codes,
        narrow_convolution=layers.narrow_convolution,
        small_matrix=layers.small_matrix,
        unfolded_norm=layers.unfolded_norm,
        concat_scales=pairs.concat_scales,
        pair_after_pad=pairs.pair_after_pad,
        double_pair=pairs.double_pair,
        pair_on_shapes=pairs.pair_on_shapes,
        pair_before_float=pairs.pair_before_float,
        pair_at_output=pairs.pair_at_output,
        lone_quantizer=pairs.lone_quantizer,
    ),
    **_rules(
        Basis.KIT,
        dynamic_shape=form.dynamic_shapes,
        unnamed_node=form.unnamed_nodes,
        large_initializer=form.large_initializers,
        unsorted_node=form.unsorted_nodes,
    ),
}
"""Every rule by its name, in the order of the findings."""


def lint_graph(
    proto: onnx.ModelProto, facts: TensorRtFacts, modules: Callable[[onnx.NodeProto], str]
) -> list[Finding]:
    """Everything of a graph that one version of TensorRT refuses, misreads or cannot fuse.

    Args:
        proto: Of a kit; not modified. A graph that is not valid ONNX gives findings, no error.
        facts: Of the TensorRT and the GPU that it is for.
        modules: Dotted name of the torch module that a node comes from; "" where it says none.
    """
    view = view_of(proto)
    return [
        Finding(
            rule=name,
            node=breach.where if isinstance(breach.where, str) else _name(breach.where),
            module="" if isinstance(breach.where, str) else _module(breach.where, view, modules),
            what=breach.what,
            remedy=breach.remedy,
            source=_source(rule.basis, facts),
        )
        for name, rule in RULES.items()
        for breach in rule.check(view, facts)
    ]


def _name(node: onnx.NodeProto) -> str:
    return node.name or f"{node.op_type} that gives {node.output[0] if node.output else 'nothing'}"


def _module(node: onnx.NodeProto, view: View, modules: Callable[[onnx.NodeProto], str]) -> str:
    """That of the node; of a pair without one, that of the layer that it is for."""
    for _ in range(_HOPS):
        found = modules(node)
        readers = view.consumers(node)
        if found or node.op_type not in MARKS or not readers:
            return found
        node = readers[0][0]
    return modules(node)


def _source(basis: Basis, facts: TensorRtFacts) -> str:
    match basis:
        case Basis.TABLE if facts.is_derived:
            return f"derived from {facts.source}"
        case Basis.TABLE:
            return f"exact table of TensorRT {facts.operators}"
        case Basis.PARSER if facts.release in _PARSERS:
            return f"parser of TensorRT {'.'.join(map(str, facts.release))}"
        case Basis.PARSER:
            nearest = max((one for one in _PARSERS if one <= facts.release), default=_PARSERS[0])
            return f"derived from the parser of TensorRT {'.'.join(map(str, nearest))}"
        case _:
            return basis.value
