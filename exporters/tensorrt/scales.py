"""Scales: symmetric INT8, zero point 0, of ranges and of weights; none of them is ever 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edgeship.exporters.half_constants import HALF_NORMAL, HALF_SMALLEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeship.calibration.ranges import Ranges

_LEVELS: Final = 127
"""Weights and activations use [-127, 127] (docs.nvidia.com TensorRT, "Quantization Schemes")."""
_HALF_FLOOR: Final = HALF_NORMAL * (1 + 2.0**-5)
"""A little above the smallest normal float16: as a subnormal the scale of a pruned channel was up
to 26 times off, and at 0 the parser refuses the file (measured with ModelOpt 0.47 on ResNet-20)."""
_FULL_FLOOR: Final = HALF_SMALLEST
"""For float32 scales: weights below it are 0 to an engine in FP16 anyhow."""


def scale_floor(*, is_half: bool) -> float:
    """The smallest scale that is written, in float16 or in float32."""
    return _HALF_FLOOR if is_half else _FULL_FLOOR


def activation_scales(groups: Mapping[str, str], ranges: Ranges) -> dict[str, float]:
    """Scale by quantized tensor: the largest magnitude in its group / 127.

    Args:
        groups: By tensor, the name of its group.
        ranges: Of all of them, none empty.
    """
    peaks: dict[str, float] = {}
    for name, group in groups.items():
        item = ranges.by_name[name]
        peaks[group] = max(peaks.get(group, 0.0), -item.low, item.high)
    return {name: peaks[group] / _LEVELS for name, group in groups.items()}


def weight_scales(values: np.ndarray, axis: int | None) -> np.ndarray:
    """float64[C], the largest magnitude of each channel / 127; a scalar where `axis` is None."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    peaks = np.abs(values.astype(np.float64)).max(axis=others, initial=0.0)
    return np.asarray(peaks / _LEVELS)


def written_scales(scales: np.ndarray | float, kind: np.dtype) -> np.ndarray:
    """The scales as the file has them: in float32 or float16, from the floor to the largest.

    A scale is rounded to nearest; at 127 steps that moves the largest value by less than half a
    step, so that it is not clipped.
    """
    floor = scale_floor(is_half=kind == np.float16)
    return np.asarray(np.clip(scales, floor, np.finfo(kind).max).astype(kind))
