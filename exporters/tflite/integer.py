"""int8: activations by our ranges, weights per channel, inputs and outputs included."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np

from edgeship.calibration.ranges import Range, Ranges
from edgeship.calibration.statistics import SENTINEL
from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    OperatorT,
    SubGraphT,
    TensorT,
    is_constant,
    operator_name,
    operators,
    read_model,
    tensor_name,
    type_name,
    write_model,
)
from edgeship.exporters.tflite.quantizer import (
    channel_peaks,
    float_values,
    inputs_of,
    keep_in_float,
    outputs_of,
    quantized_model,
)

_BITS: Final = 8
_LEVELS: Final = 255
"""Steps between -128 and 127 (LiteRT 8-bit quantization specification)."""
_WEIGHT_MAX: Final = 127
"""Weights are symmetric and never -128 (the same specification)."""
_BIAS_MAX: Final = (2**31 - 1) // 2
"""Half of int32 is left to the accumulator, as TensorFlow does (tensorflow/compiler/mlir/lite/
quantization, quantization driver, kBiasMax)."""
_LEAST: Final = 1e-9
"""The quantizer takes a smaller width or weight for this one (ai-edge-quantizer 0.10.0,
uniform_quantize_tensor.py, min_bound); at such a scale a bias does not fit into int32."""
_WEIGHTED: Final[Mapping[str, tuple[int, int, int, int]]] = {
    "CONV_2D": (0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": (0, 1, 2, 3),
    "FULLY_CONNECTED": (0, 1, 2, 0),
    "TRANSPOSE_CONV": (2, 1, 3, 0),
}
"""Positions of input, weights and bias, and the weights' axis of output channels."""
# fmt: off
_CARRIERS: Final = frozenset({
    "ADD", "BROADCAST_TO", "CAST", "CONCATENATION", "DIV", "EXPAND_DIMS", "GATHER", "GATHER_ND",
    "MAXIMUM", "MINIMUM", "MUL", "NEG", "PACK", "PAD", "PADV2", "RESHAPE", "SELECT", "SELECT_V2",
    "SLICE", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "SUB", "TILE", "TRANSPOSE", "UNPACK", "WHERE",
})
# fmt: on
"""Operators whose output may be as large as what they read."""


def integer_model(content: bytes, ranges: Ranges, kept: Collection[str] = ()) -> bytes:
    """Quantize a float file: the range of each activation as given, but that 0 lies inside.

    A tensor that was 0 throughout gets 0..1: its scale then neither vanishes nor makes the biases
    behind it overflow. Masks, and tensors in which no finite number was seen, set no scale: what
    touches them stays in float (`float_operators`).

    Args:
        content: A float file whose tensor names are unique.
        ranges: By tensor name, of its activations.
        kept: Output names of operators that stay in float; the file's ends are int8 all the same.

    Raises:
        ExportFailed: An input or output of the file cannot be int8, or the quantizer fails.
    """
    model = read_model(content)
    _require_quantizable_ends(model, ranges)
    in_float = {*kept, *float_operators(model, ranges)}
    activations = {name: _spanning_zero(item) for name, item in ranges.by_name.items()}
    quantized = quantized_model(
        content,
        lambda manager: _add_rules(manager, model, in_float),
        precision="int8",
        calibration={
            **{name: (np.array(low), np.array(high)) for name, (low, high) in activations.items()},
            **_weight_ranges(model, activations),
        },
    )
    return write_model(quantized)


def float_operators(model: ModelT, ranges: Ranges) -> dict[str, str]:
    """Why an operator must stay in float, by the name of its first output.

    int8 of a mask's scale holds nothing else, and of any other scale not the mask. A mask is known
    by what was seen, or by the constant that it comes from: representative data without padding
    never shows it. A max pooling's padding is none: the lowest int8 does the same.
    """
    masks = _masks(model, ranges)
    found = {}
    for subgraph, operator in operators(model):
        tensors = [*inputs_of(subgraph, operator), *outputs_of(subgraph, operator)]
        names = {tensor_name(tensor) for tensor in tensors}
        unseen = {tensor_name(tensor) for tensor in tensors if _is_activation(model, tensor)}
        unseen -= set(ranges.by_name)
        output = next(iter(outputs_of(subgraph, operator)), None)
        if output is None:
            continue
        if not names.isdisjoint(masks) and not _is_pool_padding(model, subgraph, operator):
            found[tensor_name(output)] = f"touches the mask {min(names & masks)}"
        elif unseen:
            found[tensor_name(output)] = f"no finite number was seen in {min(unseen)}"
    return found


def _add_rules(manager: Any, model: ModelT, in_float: Collection[str]) -> None:  # noqa: ANN401 - the vendor has no types
    from ai_edge_quantizer import qtyping

    names = qtyping.TFLOperationName
    manager.add_static_config(".*", names.ALL_SUPPORTED, _BITS, _BITS)
    # per channel, a matrix product by a constant gives nothing but zeros (LiteRT 2.3, measured)
    tensorwise = qtyping.QuantGranularity.TENSORWISE
    manager.add_static_config(".*", names.BATCH_MATMUL, _BITS, _BITS, tensorwise)
    keep_in_float(manager, model, in_float)
    for end in (names.INPUT, names.OUTPUT):  # an end has the scope of the operator beside it
        manager.add_static_config(r"\A", end, _BITS, _BITS)


def _spanning_zero(item: Range) -> tuple[float, float]:
    """The range with 0 inside, in values of float32, and wide enough for a scale."""
    low, high = (float(np.float32(end)) for end in (min(item.low, 0.0), max(item.high, 0.0)))
    return (low, high) if high - low >= _LEAST else (0.0, 1.0)


def _weight_ranges(
    model: ModelT, activations: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Symmetric ranges per channel, wide enough that its bias fits into int32.

    A bias has the scale of the input times that of its channel's weights. Of a channel that was
    pruned to 0, that scale would turn its bias into another one.
    """
    peaks: dict[int, np.ndarray] = {}
    names: dict[str, int] = {}
    for subgraph, operator in operators(model):
        for weights, needed in _needed_peaks(model, subgraph, operator, activations):
            before = peaks.get(weights.buffer)
            peaks[weights.buffer] = needed if before is None else np.maximum(before, needed)
            names[tensor_name(weights)] = weights.buffer
    return {name: (-peaks[buffer], peaks[buffer]) for name, buffer in names.items()}


def _needed_peaks(
    model: ModelT,
    subgraph: SubGraphT,
    operator: OperatorT,
    activations: Mapping[str, tuple[float, float]],
) -> Iterator[tuple[TensorT, np.ndarray]]:
    """The operator's weights with the peak of each channel, where it has constant ones."""
    layout = _WEIGHTED.get(operator_name(model, operator))
    if layout is None:
        return
    source, weights = (subgraph.tensors[operator.inputs[position]] for position in layout[:2])
    values = float_values(model, weights)
    if values is None:
        return
    peaks = channel_peaks(values, layout[3])
    peaks[peaks < _LEAST] = max(peaks.max(initial=0.0), _LEAST) if peaks.any() else 1.0
    bias = _bias(model, subgraph, operator, layout[2])
    low, high = activations.get(tensor_name(source), (0.0, 0.0))
    if bias is not None and high > low:
        step = (high - low) / _LEVELS
        fitting = np.abs(bias.astype(np.float64)) * _WEIGHT_MAX / (_BIAS_MAX * step)
        peaks = np.maximum(peaks, fitting.reshape(peaks.shape).astype(np.float32))
    yield weights, peaks


def _bias(
    model: ModelT, subgraph: SubGraphT, operator: OperatorT, position: int
) -> np.ndarray | None:
    if len(operator.inputs) <= position or operator.inputs[position] < 0:
        return None
    return float_values(model, subgraph.tensors[operator.inputs[position]])


def _masks(model: ModelT, ranges: Ranges) -> set[str]:
    """Names of the constants and activations that hold, or may hold, 1e30 and more."""
    paddings = {
        tensor_name(subgraph.tensors[index])
        for subgraph, operator in operators(model)
        if _is_pool_padding(model, subgraph, operator)
        for index in (operator.inputs[2], operator.outputs[0])
    }
    found = {*ranges.masks}
    for subgraph, operator in operators(model):
        for tensor in inputs_of(subgraph, operator):
            values = float_values(model, tensor)
            if values is not None and not (np.abs(values) < SENTINEL).all():
                found.add(tensor_name(tensor))
        found -= paddings
        names = {tensor_name(tensor) for tensor in inputs_of(subgraph, operator)}
        if operator_name(model, operator) in _CARRIERS and not names.isdisjoint(found):
            found |= {
                tensor_name(tensor)
                for tensor in outputs_of(subgraph, operator)
                if type_name(tensor) == "FLOAT32"
            }
    return found


def _is_pool_padding(model: ModelT, subgraph: SubGraphT, operator: OperatorT) -> bool:
    """Whether it pads with -inf, or close to it, what only max poolings read."""
    if operator_name(model, operator) != "PADV2":
        return False
    value = float_values(model, subgraph.tensors[operator.inputs[2]])
    output = operator.outputs[0]
    readers = [item for item in subgraph.operators if output in item.inputs]
    return (
        value is not None
        and bool((value <= -SENTINEL).all())
        and output not in subgraph.outputs
        and all(operator_name(model, reader) == "MAX_POOL_2D" for reader in readers)
    )


def _is_activation(model: ModelT, tensor: TensorT) -> bool:
    return type_name(tensor) == "FLOAT32" and not is_constant(model, tensor)


def _require_quantizable_ends(model: ModelT, ranges: Ranges) -> None:
    """Refuse a float input or output without a range that int8 could have."""
    masks = _masks(model, ranges)
    subgraph = model.subgraphs[0]
    ends = [subgraph.tensors[index] for index in (*subgraph.inputs, *subgraph.outputs)]
    for tensor in ends:
        name = tensor_name(tensor)
        is_masked = name in masks
        if type_name(tensor) == "FLOAT32" and (is_masked or name not in ranges.by_name):
            problem = Problem(
                where=f"tflite int8: {name}",
                what="an input or output of the file cannot be int8",
                expected="finite values below 1e30",
                found="a mask, whose values hide all others" if is_masked else "no finite value",
                remedy='give the mask a finite value as -16, or choose precisions = ["dynamic"]',
            )
            raise ExportFailed(problem)
