"""Bias correction: what rounding of weights moves outputs by on average, taken off the biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, fx

from edgeship.calibration.equalize.batch_norm import fold_batch_norms
from edgeship.calibration.equalize.cross_layer.layer import Layer, is_kept, layer_name, layers_of
from edgeship.calibration.equalize.rewrite import Gain, NothingToRewrite
from edgeship.calibration.equalize.watching import visit_nodes
from edgeship.vocabulary import Format, RewriteName

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Samples, Use

_LEVELS: Final = 127
"""Weights are int8, symmetric, never -128 (LiteRT 8-bit quantization specification; ONNX Runtime's
quantizer and TensorRT do the same)."""
_REDUCED_LEVELS: Final = 64
"""onnx on CPUs whose 8-bit products saturate (onnxruntime 1.31, quant_utils.py, QInt8 reduced)."""


class BiasCorrection:
    """Corrects biases by samples (Nagel et al., arXiv:1906.04721, section 4.2 and appendix B).

    For each output channel, the mean of y(Q(W)) - y(W) over samples and positions goes off the
    bias, y computed on what the float model gives the layer: padding counts as what it is. This is
    the one rewrite that changes the float function, by as much as it corrects.
    """

    name: Final = RewriteName.BIAS_CORRECTION
    gain: Final = Gain.ACCURACY
    is_exact: Final = False

    def problems(self, use: Use) -> Iterator[str]:  # noqa: ARG002 - of use for all integer formats
        """None."""
        yield from ()

    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:
        """See `Rewrite`."""
        if fold_batch_norms(program):
            program.graph.eliminate_dead_code()
        layers = [layer for layer in layers_of(program) if not is_kept(layer, use)]
        if not layers:
            message = "no convolution and no linear layer has integer weights"
            raise NothingToRewrite(message)
        errors = {
            layer.node: rounding_error(layer, program, weight_levels(use)) for layer in layers
        }
        shifts = mean_shifts(program, samples, layers, errors)
        for layer in layers:
            _correct(program, layer, shifts[layer.node].mean)
        return (_told(layers, shifts),)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What rounding a layer's weight does to its outputs.

    Attributes:
        mean: float64[outputs], of y(Q(W)) - y(W) over samples and positions.
        peak: Largest magnitude of y(W).
    """

    mean: Tensor
    peak: float


def weight_levels(use: Use) -> int:
    """Steps from 0 to the largest magnitude of a weight's channel."""
    is_reduced = use.format is Format.ONNX and use.target.formats[Format.ONNX].reduce_range
    return _REDUCED_LEVELS if is_reduced else _LEVELS


def rounding_error(layer: Layer, program: FloatProgram, levels: int) -> Tensor:
    """Q(W) - W in the weight's shape: one step for each output, rounded half to even."""
    rows = layer.rows(program).double()
    peaks = rows.abs().amax((2, 3), keepdim=True)
    steps = peaks.where(peaks > 0, 1.0) / levels
    error = (rows / steps).round() * steps - rows
    return layer.weight_of(program, error).to(program.tensor(layer.weight).dtype)


def mean_shifts(
    program: FloatProgram,
    samples: Samples,
    layers: Sequence[Layer],
    errors: Mapping[fx.Node, Tensor],
) -> dict[fx.Node, Shift]:
    """The shift of each layer, by running its operator with the error of its weight in its place.

    Args:
        program: Not modified.
        samples: At least one.
        layers: To look at.
        errors: By a layer's node, Q(W) - W.
    """
    axes = {layer.node: layer.axis for layer in layers}
    means: dict[fx.Node, list[Tensor]] = {node: [] for node in axes}
    peaks = dict.fromkeys(axes, 0.0)

    def visit(node: fx.Node, arguments: tuple[Any, ...], value: Tensor) -> None:
        moved = _without_bias(node, arguments, errors[node])
        rows = moved.movedim(axes[node], 0).reshape(moved.shape[axes[node]], -1)
        means[node].append(rows.double().mean(1))
        peaks[node] = max(peaks[node], float(value.abs().amax()))

    visit_nodes(program, samples, set(axes), visit)
    return {
        node: Shift(mean=torch.stack(found).mean(0), peak=peaks[node])
        for node, found in means.items()
    }


def _without_bias(node: fx.Node, arguments: tuple[Any, ...], weight: Tensor) -> Tensor:
    assert callable(node.target)
    options = {key: value for key, value in node.kwargs.items() if key != "bias"}
    value = node.target(arguments[0], weight, None, *arguments[3:], **options)
    assert isinstance(value, Tensor)
    return value


def _correct(program: FloatProgram, layer: Layer, shift: Tensor) -> None:
    if layer.bias is None:
        weight = program.tensor(layer.weight)
        layer.set_bias(program, (-shift).to(weight.dtype))
        return
    bias = program.tensor(layer.bias)
    layer.set_bias(program, (bias.double() - shift).to(bias.dtype))


def _told(layers: Sequence[Layer], shifts: Mapping[fx.Node, Shift]) -> str:
    """The largest correction, compared with what its layer gives."""

    def share(layer: Layer) -> float:
        shift = shifts[layer.node]
        return float(shift.mean.abs().amax()) / shift.peak if shift.peak else 0.0

    worst = max(layers, key=share)
    return (
        f"{len(layers)} biases corrected for the rounding of weights, by up to "
        f"{share(worst):.2%} of what the layer gives ({layer_name(worst)})"
    )
