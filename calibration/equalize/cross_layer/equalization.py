"""Cross-layer equalization: scales of channels moved from layers that write to those that read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import fx

from edgeship.calibration.equalize.batch_norm import fold_batch_norms
from edgeship.calibration.equalize.cross_layer.layer import LAYERS, Layer, is_kept, layers_of
from edgeship.calibration.equalize.cross_layer.noise import Reader
from edgeship.calibration.equalize.cross_layer.observation import observe_channels
from edgeship.calibration.equalize.cross_layer.scales import Solution, solve_scales
from edgeship.calibration.equalize.cross_layer.scaling import channel_rows, scale_channels
from edgeship.calibration.equalize.cross_layer.spaces import Space, find_spaces
from edgeship.calibration.equalize.rewrite import Gain, NothingToRewrite
from edgeship.vocabulary import RewriteName

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Samples, Use

_ATEN: Final = torch.ops.aten
_FUSED: Final = frozenset(
    {
        _ATEN.relu.default,
        _ATEN.relu_.default,
        _ATEN.clamp.default,
        _ATEN.clamp_.default,
        _ATEN.clamp_min.default,
        _ATEN.clamp_min_.default,
    }
)
"""Done by the layer or the sum before it, whose own value then is never rounded."""
_ROUNDED: Final = frozenset(
    {*LAYERS, *_FUSED, _ATEN.add.Tensor, _ATEN.add_.Tensor, _ATEN.sub.Tensor, _ATEN.sub_.Tensor}
)
"""Those that compute new values; others move them, or make them smaller."""
_LEAST_DB: Final = 6.02
"""Modelled gain below which a space is left alone: one bit. In ResNet-20 the best one would gain
4.4 dB by the model, and equalizing them all left its outputs where they were (29.0 and 28.8 dB,
measured)."""


class CrossLayer:
    """Equalizes the channels between layers (Nagel et al., arXiv:1906.04721, section 4.1).

    Exact for every input: only what scales along with its input lies between the layers. A clamp
    from both sides, as ReLU6, does not, and stays: a channel that reaches its limit fills the
    range, and one that does not could be scaled up to it only as far as the samples tell. Nor are
    high biases absorbed by the next layer, for the same reason.
    """

    name: Final = RewriteName.CROSS_LAYER
    gain: Final = Gain.ACCURACY
    is_exact: Final = True

    def problems(self, use: Use) -> Iterator[str]:  # noqa: ARG002 - of use for all integer formats
        """None."""
        yield from ()

    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:
        """See `Rewrite`."""
        if fold_batch_norms(program):
            program.graph.eliminate_dead_code()
        spaces = find_spaces(program)
        if not spaces:
            message = (
                "no layers follow each other with nothing but ReLUs, sums and poolings between"
            )
            raise NothingToRewrite(message)
        solved = _solve(program, spaces, samples, use)
        chosen = [item for item in solved if item.solution.gain_db >= _LEAST_DB]
        if not chosen:
            raise NothingToRewrite(_why_not(solved))
        for item in chosen:
            scale_channels(program, item.space, item.solution.scales)
        return (_told(program, chosen, len(spaces)),)


@dataclass(frozen=True, kw_only=True)
class _Solved:
    space: Space
    solution: Solution


def _solve(
    program: FloatProgram, spaces: Sequence[Space], samples: Samples, use: Use
) -> list[_Solved]:
    """Scales of the spaces that a layer in integers reads."""
    axes = {
        node: (place.axis, place.repeat)
        for space in spaces
        for node, place in space.values
        if _is_rounded(node) or any(layer.source is node for layer in space.readers)
    }
    seen = observe_channels(program, samples, axes)
    found = []
    for space in spaces:
        readers = [
            Reader.of(channel_rows(program, layer, space), seen[_source(layer)].power)
            for layer in space.readers
            if not is_kept(layer, use)
        ]
        values = [seen[node] for node, _ in space.values if node in seen and _is_rounded(node)]
        if readers:
            solution = solve_scales(readers, values, is_symmetric=use.is_symmetric)
            found.append(_Solved(space=space, solution=solution))
    return found


def _is_rounded(node: fx.Node) -> bool:
    readers = list(node.users)
    is_swallowed = len(readers) == 1 and readers[0].target in _FUSED
    return node.target in _ROUNDED and not is_swallowed


def _source(layer: Layer) -> fx.Node:
    assert isinstance(layer.source, fx.Node)
    return layer.source


def _why_not(solved: Sequence[_Solved]) -> str:
    if not solved:
        return "the layers that could be equalized stay in float"
    best = max(solved, key=lambda item: item.solution.gain_db).solution
    return (
        f"the channels between layers are even: the widest is 2^{math.log2(best.before):.1f} times "
        f"the median one, and scales would take {best.gain_db:.1f} dB off the noise that is "
        f"modelled there, less than a bit"
    )


def _told(program: FloatProgram, chosen: Sequence[_Solved], count: int) -> str:
    layers = {id(item.node) for one in chosen for item in (*one.space.writers, *one.space.readers)}
    worst = max(chosen, key=lambda item: item.solution.gain_db).solution
    return (
        f"channels in {len(chosen)} of {count} places between layers scaled, in {len(layers)} of "
        f"{len(layers_of(program))} layers: where it mattered most the widest channel was "
        f"2^{math.log2(worst.before):.1f} times the median one and is "
        f"2^{math.log2(worst.after):.1f} times now"
    )
