"""SmoothQuant: what linear layers read is made even, and the weights take up what was taken off."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from edgeship.calibration.equalize.program import FloatProgram, module_name
from edgeship.calibration.equalize.rewrite import Gain, NothingToRewrite, Samples, Use
from edgeship.calibration.equalize.smoothquant.observation import Seen, observe_nodes
from edgeship.calibration.equalize.smoothquant.scales import shared_reach
from edgeship.calibration.equalize.smoothquant.search import Choice, best_choice
from edgeship.calibration.equalize.smoothquant.sites import Site, find_sites, is_float_between
from edgeship.source.model import one_thread
from edgeship.vocabulary import Format, RewriteName

WORTH: Final = 0.8
"""Of the error before, what may be left of it: less gain is not worth a change, nor the time of a
multiplication."""
_ATEN: Final = torch.ops.aten


class SmoothQuant:
    """Source: Xiao et al., "SmoothQuant", 2022. Here alpha is searched for each activation."""

    name: Final = RewriteName.SMOOTHQUANT
    gain: Final = Gain.ACCURACY
    is_exact: Final = True

    def problems(self, use: Use) -> Iterable[str]:
        """None for a format with integer activations: the rest only a program can tell."""
        if use.format is Format.GGUF:
            yield "its activations are not calibrated"

    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:
        """Scale each activation that linear layers read where their error shrinks.

        The scales are folded into what makes the activation; where nothing can take them, and the
        activation is in float, a multiplication by a constant is put in, in the layers' module.

        Raises:
            NothingToRewrite: No such activation, or none with an error to shrink.
        """
        program.graph.eliminate_dead_code()  # layers that no output needs would be scaled, too
        sites = tuple(find_sites(program, use))
        if not sites:
            raise NothingToRewrite(_reason(program, use))
        with one_thread():
            seen = observe_nodes(program, [site.source for site in sites], samples)
            done = tuple(_smoothed(program, sites, seen, use))
        if not done:
            message = (
                f"no scales take a fifth of the error off what reads any of {len(sites)} "
                "activations: their channels are even"
            )
            raise NothingToRewrite(message)
        return _lines(done, len(sites))


@dataclass(frozen=True, kw_only=True)
class _Done:
    site: Site
    choice: Choice


def _smoothed(
    program: FloatProgram, sites: Sequence[Site], seen: dict[torch.fx.Node, Seen], use: Use
) -> Iterator[_Done]:
    for site in sites:
        choice = _choice(program, site, seen[site.source], use)
        if choice.error < WORTH * choice.error_before:
            _scale(program, site, choice)
            yield _Done(site=site, choice=choice)


def _choice(program: FloatProgram, site: Site, seen: Seen, use: Use) -> Choice:
    fold = site.fold
    return best_choice(
        seen,
        [product.matrix(program) for product in site.products],
        lambda reach: reach if fold is None else shared_reach(reach, fold.origin, fold.channels),
        lambda scale: scale if fold is None else scale[fold.origin],
        is_symmetric=use.is_symmetric,
    )


def _scale(program: FloatProgram, site: Site, choice: Choice) -> None:
    if site.fold is not None:
        site.fold.divide(program, choice.scale)
        for product in (*site.products, *site.kept):
            product.multiply(program, choice.scale[site.fold.origin])
        return
    first = site.products[0].node
    name = f"{module_name(first)}.smoothing".lstrip(".")
    factor = program.add_tensor(name, 1 / choice.scale, first)
    even = program.insert(_ATEN.mul.Tensor, (site.source, factor), before=first, like=first)
    for product in site.products:
        product.node.replace_input_with(site.source, even)
        product.multiply(program, choice.scale)


def _lines(done: Sequence[_Done], count: int) -> Sequence[str]:
    folded = sum(item.site.fold is not None for item in done)
    alphas = [item.choice.alpha for item in done]
    kept = statistics.median(item.choice.error / item.choice.error_before for item in done)
    return (
        f"{len(done)} of {count} activations that linear layers read have scales, {folded} of them "
        f"folded into what makes them, {len(done) - folded} as a multiplication; alpha "
        f"{min(alphas):.2f} to {max(alphas):.2f}, median {statistics.median(alphas):.2f}",
        f"simulated error of the layers' outputs: {kept:.2f} of what it was, in the median",
    )


def _reason(program: FloatProgram, use: Use) -> str:
    if is_float_between(program, use):
        return "no linear layer has an activation to itself"
    return (
        f"scales help an integer {use.format} file only in the weights of what makes an activation,"
        " and what makes those that linear layers read has other readers, or none to take them"
    )
