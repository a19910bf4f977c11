"""int8 at run time: weights quantized here, activations by the runtime, from each input anew."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    operator_name,
    operators,
    read_model,
    tensor_name,
    type_name,
    write_model,
)
from edgeship.exporters.tflite.outer_scales import move_scales_out
from edgeship.exporters.tflite.quantizer import (
    keep_in_float,
    outputs_of,
    quantized_model,
)

_PRECISION: Final = "dynamic"
_BITS: Final = 8
_UNSUPPORTED: Final = "TRANSPOSE_CONV"
"""tflite-runtime 2.14 refuses it ("weights->type != input->type", measured)."""


def dynamic_model(content: bytes, *, for_old: bool, kept: Collection[str] = ()) -> bytes:
    """Quantize the weights of convolutions, linear layers, products and look-ups to int8.

    Each has one scale per output channel, a look-up table one per row. Activations, inputs and
    outputs are float32.

    Args:
        content: A float file whose tensor names are unique.
        for_old: For tflite-runtime 2.14, which reads only the first scale of linear layers,
            products and look-ups, and then computes nonsense without an error (measured):
            products and look-ups have one in all, linear layers theirs behind them.
            Transposed convolutions, which it cannot load, stay in float.
        kept: Output names of operators that stay in float.

    Raises:
        ExportFailed: The quantizer cannot do it, or nothing is left for it.
    """
    model = read_model(content)
    in_float = {*kept, *(_unsupported(model) if for_old else ())}

    def recipe(manager: Any) -> None:  # noqa: ANN401 - the vendor has no types
        from ai_edge_quantizer import qtyping

        names, tensorwise = qtyping.TFLOperationName, qtyping.QuantGranularity.TENSORWISE
        manager.add_dynamic_config(".*", names.ALL_SUPPORTED, _BITS)
        if for_old:
            # not convolutions: a depthwise one with a single scale gives nonsense in LiteRT 2.3
            # as in 2.14, and a grouped one does not load in the latter (measured)
            for name in (names.BATCH_MATMUL, names.EMBEDDING_LOOKUP):
                manager.add_dynamic_config(".*", name, _BITS, tensorwise)
        keep_in_float(manager, model, in_float)

    quantized = quantized_model(content, recipe, precision=_PRECISION)
    if not any(type_name(item) == "INT8" for item in quantized.subgraphs[0].tensors):
        problem = Problem(
            where="tflite dynamic",
            what="the model cannot be quantized at run time",
            expected="a layer with constant weights, that no rule keeps in fp32",
            found="none",
            remedy='choose precisions = ["fp32"]',
        )
        raise ExportFailed(problem)
    if for_old:
        move_scales_out(quantized)
    return write_model(quantized)


def _unsupported(model: ModelT) -> set[str]:
    return {
        tensor_name(tensor)
        for subgraph, operator in operators(model)
        if operator_name(model, operator) == _UNSUPPORTED
        for tensor in outputs_of(subgraph, operator)
    }
