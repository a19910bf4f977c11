"""Scaling: factors of a space's channels, moved between the layers that write and that read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeship.calibration.equalize.cross_layer.carriers import Place, shape_of

if TYPE_CHECKING:
    from torch import Tensor

    from edgeship.calibration.equalize.cross_layer.layer import Layer
    from edgeship.calibration.equalize.cross_layer.spaces import Space
    from edgeship.calibration.equalize.program import FloatProgram


def scale_channels(program: FloatProgram, space: Space, scales: Tensor) -> None:
    """Multiply the channels of a space, and leave what the program computes.

    Args:
        program: Edited in place, its weights computed in float64 and rounded once.
        space: Of this program.
        scales: float64[C], positive.
    """
    for layer in space.writers:
        _scale_outputs(program, layer, scales)
    for layer in space.readers:
        rows = layer.rows(program)
        wide = channel_rows(program, layer, space).double()
        scaled = wide / scales.reshape(layer.groups, 1, -1, 1)
        layer.set_rows(program, scaled.reshape(rows.shape).to(rows.dtype))
    places = dict(space.values)
    for constant, total in space.constants:
        value = program.tensor(constant)
        factor = _factors(scales, places[total], len(shape_of(total)))
        program.set_tensor(constant, (value.double() * factor).to(value.dtype))


def channel_rows(program: FloatProgram, layer: Layer, space: Space) -> Tensor:
    """float32[groups, outputs / groups, channels / groups, weights that read the channel]."""
    rows = layer.rows(program)
    return rows.reshape(*rows.shape[:2], space.size // layer.groups, -1)


def _scale_outputs(program: FloatProgram, layer: Layer, scales: Tensor) -> None:
    rows = layer.rows(program)
    scaled = rows.double() * scales.reshape(layer.groups, -1, 1, 1)
    layer.set_rows(program, scaled.to(rows.dtype))
    if layer.bias is not None:
        bias = program.tensor(layer.bias)
        layer.set_bias(program, (bias.double() * scales).to(bias.dtype))


def _factors(scales: Tensor, place: Place, rank: int) -> Tensor:
    """In a shape that broadcasts to a value of this rank."""
    shape = [1] * rank
    shape[place.axis] = -1
    return scales.repeat_interleave(place.repeat).reshape(shape)
