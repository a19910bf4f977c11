"""Outer scales: those of a dynamic linear layer's channels, behind the layer instead of in it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from edgeship.exporters.tflite.edits import add_tensor, new_operator, set_constant
from edgeship.exporters.tflite.flatbuffer import operator_name, tensor_name, type_name

if TYPE_CHECKING:
    from edgeship.exporters.tflite.flatbuffer import ModelT, OperatorT, SubGraphT


def move_scales_out(tables: ModelT) -> int:
    """Give each dynamic FULLY_CONNECTED one scale, and multiply its channels behind it.

    y = (x @ q) * s + b with the integers q and the scale s of each channel, in both forms. For
    tflite_runtime 2.14, which reads only the first scale of such a layer: MiniLM had a cosine of
    .03 with a scale for each channel, .948 quantized with one scale in all, .995 so (measured).

    Modifies `tables`; what is not float with int8 weights of several scales stays.

    Returns:
        How many layers were changed.
    """
    (graph,) = tables.subgraphs
    made: list[OperatorT] = []
    count = 0
    for operator in graph.operators:
        made.append(operator)
        if _has_channel_scales(tables, graph, operator):
            made += _scaled_behind(tables, graph, operator)
            count += 1
    graph.operators = made
    return count


def _has_channel_scales(tables: ModelT, graph: SubGraphT, operator: OperatorT) -> bool:
    if operator_name(tables, operator) != "FULLY_CONNECTED":
        return False
    source, weights = (graph.tensors[index] for index in operator.inputs[:2])
    scales = None if weights.quantization is None else weights.quantization.scale
    types = (type_name(source), type_name(weights))
    return types == ("FLOAT32", "INT8") and scales is not None and len(scales) > 1


def _scaled_behind(tables: ModelT, graph: SubGraphT, layer: OperatorT) -> list[OperatorT]:
    """What follows the layer: a MUL and, for a bias, an ADD; the last gives the layer's output."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    _own_weights(tables, graph, layer)
    output, float32 = int(layer.outputs[0]), schema.TensorType.FLOAT32
    shape, place = graph.tensors[output].shape, tensor_name(graph.tensors[layer.inputs[1]])
    place = place.rpartition("/")[0]
    quantization = graph.tensors[layer.inputs[1]].quantization
    scales = np.array(quantization.scale, np.float32)
    largest = scales.max()
    quantization.scale, quantization.zeroPoint = [float(largest)], [0]
    quantization.quantizedDimension = 0
    factors = add_tensor(tables, scales.shape, float32, f"{place}/scales")
    set_constant(tables, graph.tensors[factors], scales / largest)
    bias = int(layer.inputs[2]) if len(layer.inputs) > 2 else -1
    activation = layer.builtinOptions.fusedActivationFunction
    layer.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
    layer.inputs = [int(index) for index in layer.inputs[:2]] + [-1]
    product = add_tensor(tables, shape, float32, f"{place}/fully_connected")
    layer.outputs = [product]
    scaled, added = schema.MulOptionsT(), schema.AddOptionsT()
    if bias < 0:
        scaled.fusedActivationFunction = activation
        return [new_operator(tables, "MUL", (product, factors), output, ("MulOptions", scaled))]
    added.fusedActivationFunction = activation
    middle = add_tensor(tables, shape, float32, f"{place}/mul")
    return [
        new_operator(tables, "MUL", (product, factors), middle, ("MulOptions", scaled)),
        new_operator(tables, "ADD", (middle, bias), output, ("AddOptions", added)),
    ]


def _own_weights(tables: ModelT, graph: SubGraphT, layer: OperatorT) -> None:
    """Give the layer a tensor of its own, of the same buffer, where another operator reads it."""
    index = int(layer.inputs[1])
    if sum(index in list(operator.inputs) for operator in graph.operators) == 1:
        return
    shared = graph.tensors[index]
    own = add_tensor(tables, shared.shape, shared.type, tensor_name(shared))
    graph.tensors[own].buffer = shared.buffer
    graph.tensors[own].quantization = copy.copy(shared.quantization)
    layer.inputs = [int(layer.inputs[0]), own, *(int(item) for item in layer.inputs[2:])]
