"""Eligibility: which layers gain from INT8 on a GPU, and why the others do not.

Source of the sizes: qdq rules of TensorRT and of NVIDIA's Model Optimizer 0.47
(modelopt/onnx/quantization/graph_utils.py, `_MIN_MATMUL_DIM` and its convolutions to exclude).
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from edgeship.exporters.structure import LINEAR, MOVERS
from edgeship.exporters.tensorrt.wiring import attributes_of, positions_of

if TYPE_CHECKING:
    import onnx

    from edgeship.exporters.tensorrt.wiring import Wiring

_MIN_WIDTH: Final = 16
"""Rows and columns of a matrix, and channels of a convolution, that an INT8 tile holds."""
_CHANNEL_STEP: Final = 8
"""Fewer channels still fill a vector if they are a multiple of this."""
_SCORES: Final = MOVERS | {"Where", "Mul", "Div", "Add", "Sub", "Cast", "Clip"}
"""What stands between the product of queries and keys and its Softmax: scaling and masking."""


class Reason(StrEnum):
    """Why a layer of `LINEAR` is computed in float."""

    RULE = "a rule keeps them"
    WEIGHT = "their weight is no constant on the right"
    GROUPS = "a transposed convolution in groups has no scale per output channel"
    CHANNELS = "fewer than 16 channels, and no multiple of 8"
    MATRIX = "a side of the matrix is below 16"
    VECTOR = "a product with one row or column"
    ATTENTION = "products beside a Softmax"
    RANGE = "nothing, zeros or a mask was seen of an input"
    PAD = "what pads their input is not 0"


SIZES: Final = frozenset({Reason.CHANNELS, Reason.MATRIX, Reason.VECTOR})
"""Reasons that a rule may overrule: INT8 is possible, and no faster."""


def refusal(node: onnx.NodeProto, wiring: Wiring) -> Reason | None:
    """Why a node of `LINEAR` is not quantized whatever the recipe and the ranges say."""
    match node.op_type:
        case "Conv" | "ConvTranspose":
            return _convolution_refusal(node, wiring)
        case _:
            return _matrix_refusal(node, wiring)


def linear_nodes(wiring: Wiring) -> list[onnx.NodeProto]:
    """The nodes of `LINEAR` that compute with floats."""
    return [
        node
        for node in wiring.nodes.values()
        if node.op_type in LINEAR and wiring.floats.issuperset(node.output)
    ]


def _convolution_refusal(node: onnx.NodeProto, wiring: Wiring) -> Reason | None:
    if not wiring.is_constant(node.input[1]) or wiring.is_constant(node.input[0]):
        return Reason.WEIGHT
    attributes = attributes_of(node)
    if node.op_type == "ConvTranspose" and attributes.get("group", 1) != 1:
        return Reason.GROUPS
    source, result = wiring.shape(node.input[0]), wiring.shape(node.output[0])
    channels = (source[1], result[1])
    kernel = wiring.shape(node.input[1])[2:]
    is_even = all(count % _CHANNEL_STEP == 0 for count in channels) and len({*kernel}) <= 1
    is_first = _is_first(node, wiring)
    if min(channels) < _MIN_WIDTH and not is_even and not is_first:
        return Reason.CHANNELS
    if positions_of(source) == 1 and positions_of(result) == 1:
        return Reason.VECTOR
    return None


def _is_first(node: onnx.NodeProto, wiring: Wiring) -> bool:
    """Whether it reads an input of the graph, padded or not."""
    name = node.input[0]
    producer = wiring.producer(name)
    while producer is not None and producer.op_type in MOVERS:
        name = producer.input[0]
        producer = wiring.producer(name)
    return name in wiring.inputs


def _matrix_refusal(node: onnx.NodeProto, wiring: Wiring) -> Reason | None:
    left, right = node.input[0], node.input[1]
    if wiring.is_constant(left) or (node.op_type == "Gemm" and not wiring.is_constant(right)):
        return Reason.WEIGHT
    if not wiring.is_constant(right) and _is_beside_softmax(node, wiring):
        return Reason.ATTENTION
    if len(wiring.shape(left)) < 2 or len(wiring.shape(right)) < 2:
        return Reason.VECTOR
    rows, depth, columns = _matrix_sizes(node, wiring)
    if rows == 1 or columns == 1:
        return Reason.VECTOR
    return Reason.MATRIX if min(depth, columns) < _MIN_WIDTH else None


def _matrix_sizes(node: onnx.NodeProto, wiring: Wiring) -> tuple[int, int, int]:
    """M, K and N; a stack of left matrices by one right matrix is one taller matrix."""
    left, right = wiring.shape(node.input[0]), wiring.shape(node.input[1])
    attributes = attributes_of(node)
    rows, depth = left[-2:] if not attributes.get("transA") else (left[-1], left[-2])
    if len(right) == 2:
        rows = math.prod(left) // depth
    columns = right[-2] if attributes.get("transB") else right[-1]
    return rows, depth, columns


def _is_beside_softmax(node: onnx.NodeProto, wiring: Wiring) -> bool:
    """Whether it is one of the two products of attention, which is fused as a whole in FP16."""
    pending, seen = [*node.input], set()
    while pending:
        producer = wiring.producer(pending.pop())
        if producer is None or producer.name in seen:
            continue
        seen.add(producer.name)
        if producer.op_type == "Softmax":
            return True
        if producer.op_type in MOVERS | {"Where"}:
            pending += producer.input
    pending = [*node.output]
    while pending:
        for reader in wiring.reading_nodes(pending.pop()):
            if reader.op_type == "Softmax":
                return True
            if reader.op_type in _SCORES and reader.name not in seen:
                seen.add(reader.name)
                pending += reader.output
    return False
