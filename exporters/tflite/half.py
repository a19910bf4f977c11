"""float16: weights are stored in half the bytes, and made float32 again when the file is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np

from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    operator_name,
    operators,
    read_model,
    tensor_name,
    write_model,
)
from edgeship.exporters.tflite.quantizer import (
    float_values,
    keep_in_float,
    outputs_of,
    quantized_model,
)

_PRECISION: Final = "fp16"
_BITS: Final = 16
_WEIGHTED: Final = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "EMBEDDING_LOOKUP", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
)
"""What the quantizer does this for (ai-edge-quantizer 0.10.0, float_casting.py)."""
_WEIGHTS: Final = 1
"""Position of the weights, of each of them."""
_HALF_MAX: Final = 65504.0
"""Largest finite float16 (IEEE 754-2008, binary16: (2 - 2**-10) * 2**15)."""


def half_model(content: bytes, kept: Collection[str] = ()) -> bytes:
    """Round the weights of convolutions, linear layers and look-ups to float16, to nearest even.

    Inputs, outputs, biases and arithmetic stay float32. Weights with a finite value beyond 65504
    stay float32 altogether; infinities and NaN are kept as they are.

    Args:
        content: A float file whose tensor names are unique.
        kept: Output names of operators whose weights stay float32.

    Raises:
        ExportFailed: The quantizer cannot do it.
    """
    model = read_model(content)
    in_float = {*kept, *_overflowing(model)}

    def recipe(manager: Any) -> None:  # noqa: ANN401 - the vendor has no types
        from ai_edge_quantizer import algorithm_manager, qtyping

        manager.add_weight_only_config(
            ".*",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            _BITS,
            algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
        )
        keep_in_float(manager, model, in_float)

    return write_model(quantized_model(content, recipe, precision=_PRECISION))


def half_notes(content: bytes) -> list[str]:
    """Lines for the manifest: which weights are too large for float16."""
    found = _overflowing(read_model(content))
    return [
        f"weights of {name} stay in float32: {value:.4g} is beyond float16"
        for name, value in found.items()
    ]


def _overflowing(model: ModelT) -> dict[str, float]:
    """The largest weight where one is beyond float16, by the output name of its operator."""
    found = {}
    for subgraph, operator in operators(model):
        if operator_name(model, operator) not in _WEIGHTED:
            continue
        values = float_values(model, subgraph.tensors[operator.inputs[_WEIGHTS]])
        finite = np.empty(0) if values is None else values[np.isfinite(values)]
        if np.abs(finite).max(initial=0.0) > _HALF_MAX:
            largest = float(finite[np.abs(finite).argmax()])
            found[tensor_name(outputs_of(subgraph, operator)[0])] = largest
    return found
