"""BatchNorm folding: in inference it scales and shifts channels, as the layer before it can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.cross_layer.layer import Layer, count_uses, layer_of
from edgeship.calibration.equalize.program import is_tensor

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram

_ATEN: Final = torch.ops.aten
_TRAINING: Final = 5
_EPSILON: Final = 7


def fold_batch_norms(program: FloatProgram) -> int:
    """Move each BatchNorm into the convolution or linear layer before it, and count them.

    y = (W x + b - mean) * gain / sqrt(variance + epsilon) + shift (arXiv:1502.03167, algorithm 2)
    is linear in x; the new weight and bias are computed in float64. Left as they are: those in
    training mode, those behind something else, and those whose layer has other readers or a weight
    that another node uses too.
    """
    folded = 0
    for node in program.calls(_ATEN.batch_norm.default):
        layer = _layer_before(node)
        if layer is not None:
            _fold(program, layer, node)
            folded += 1
    return folded


def _layer_before(norm: fx.Node) -> Layer | None:
    source, *parameters = norm.args[:_TRAINING]
    if norm.args[_TRAINING] or not isinstance(source, fx.Node) or len(source.users) != 1:
        return None
    if any(item is not None and not is_tensor(item) for item in parameters):
        return None
    if parameters[2] is None or parameters[3] is None:
        return None
    layer = layer_of(source)
    # BatchNorm's channels are on axis 1; a linear layer's are so in two dimensions only
    if layer is None or layer.axis != 1 or count_uses(layer.weight) != 1:
        return None
    return layer


def _fold(program: FloatProgram, layer: Layer, norm: fx.Node) -> None:
    gain, shift, mean, variance = (
        None if item is None else program.tensor(item).double() for item in norm.args[1:5]
    )
    assert mean is not None
    assert variance is not None
    factor = torch.rsqrt(variance + float(str(norm.args[_EPSILON])))
    factor = factor if gain is None else factor * gain
    bias: Tensor = -mean if layer.bias is None else program.tensor(layer.bias).double() - mean
    bias = bias * factor if shift is None else bias * factor + shift
    rows = layer.rows(program)
    scaled = rows.double() * factor.reshape(layer.groups, -1, 1, 1)
    layer.set_rows(program, scaled.to(rows.dtype))
    layer.set_bias(program, bias.to(rows.dtype))
    norm.replace_all_uses_with(layer.node)
    program.graph.erase_node(norm)
