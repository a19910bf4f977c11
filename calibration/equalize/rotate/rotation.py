"""Rotation: an encoder in the rotated RMS form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from edgeship.calibration.equalize.program import module_name
from edgeship.calibration.equalize.rewrite import Gain, NothingToRewrite
from edgeship.calibration.equalize.rotate.folds import Folds, make_basis
from edgeship.calibration.equalize.rotate.hadamard import hadamard_order
from edgeship.calibration.equalize.rotate.heads import find_attentions, turn_heads
from edgeship.calibration.equalize.rotate.identities import remove_identities
from edgeship.calibration.equalize.rotate.norms import find_norms
from edgeship.calibration.equalize.rotate.rms import Rms, write_rms
from edgeship.calibration.equalize.rotate.streams import MOST_DETOURS, Stream, find_streams
from edgeship.calibration.equalize.rotate.tokens import bring_tokens_together
from edgeship.calibration.equalize.rotate.weights import Weights
from edgeship.vocabulary import Format, RewriteName

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram
    from edgeship.calibration.equalize.rewrite import Samples, Use

_HEAD_SEEDS: Final = 10_000
"""Seeds below it are those of streams."""


class Rotation:
    """Turns what encoders carry from layer to layer by orthogonal matrices; see `folds`.

    A few elements of a few tokens hold the largest values of all; turned, each element holds a
    share of them. All int8, MiniLM's cosine to the float model was .985 so, and below .75 as it
    stood; with tokens brought together as well (see `tokens`) it was .996 (measured, LiteRT).
    """

    @property
    def name(self) -> RewriteName:
        """As in `Rewrite`."""
        return RewriteName.ROTATE

    @property
    def gain(self) -> Gain:
        """As in `Rewrite`."""
        return Gain.ACCURACY

    @property
    def is_exact(self) -> bool:
        """As in `Rewrite`."""
        return True

    def problems(self, use: Use) -> Iterable[str]:  # noqa: ARG002  # the protocol's
        """None: every format has its integers after linear layers."""
        return ()

    def apply(self, program: FloatProgram, samples: Samples, use: Use) -> Sequence[str]:
        """As in `Rewrite`.

        Layers that are kept in float change as well: it costs them nothing.
        """
        remove_identities(program)
        attentions = find_attentions(program)
        if not attentions:
            message = "it has no attention"
            raise NothingToRewrite(message)
        streams = find_streams(find_norms(program))
        if not streams:
            message = "no norm reads what linear layers or look-ups give"
            raise NothingToRewrite(message)
        weights = Weights(program)
        turned = [
            turn_heads(attention, weights, _HEAD_SEEDS + 2 * index)
            for index, attention in enumerate(attentions)
        ]
        added, norms = _fold(program, weights, streams)
        lines = [*_stream_lines(streams, added), *_head_lines(turned)]
        if use.format is Format.TFLITE:  # elsewhere norms stay in float
            lines += bring_tokens_together(program, norms, samples)
        return lines


def _fold(
    program: FloatProgram, weights: Weights, streams: Sequence[Stream]
) -> tuple[int, list[Rms]]:
    """How many layers were put between, and what the norms have become, in order."""
    folds = Folds(
        program, weights, {stream: make_basis(stream, i) for i, stream in enumerate(streams)}
    )
    for stream in streams:
        folds.fold(stream)
    norms = [norm for stream in streams for norm in stream.norms]
    for norm in norms:
        folds.fold_readers(norm)
    if len(folds.left) > MOST_DETOURS:
        where = module_name(folds.left[0]) or folds.left[0].name
        message = f"layer {where}, as others, is read by what is no linear layer"
        raise NothingToRewrite(message)
    weights.write()
    order = {node: index for index, node in enumerate(program.graph.nodes)}
    norms.sort(key=lambda norm: order[norm.output])
    return len(folds.made), [write_rms(program, norm) for norm in norms]


def _stream_lines(streams: Sequence[Stream], added: int) -> Iterator[str]:
    widths = Counter(stream.width for stream in streams for _ in stream.norms)
    for width, count in widths.items():
        yield f"what norms of {width} elements read turned by an orthogonal matrix: {count} norms"
        order = hadamard_order(width)
        if order < width:
            yield (
                f"width {width} has no Hadamard matrix that is known here: one of {order} and a "
                f"cosine transform of {width // order} spread outliers less evenly"
            )
    if added:
        yield f"linear layers added, which turn from norm to norm or back: {added}"


def _head_lines(turned: Sequence[bool]) -> Iterator[str]:
    if any(turned):
        yield f"{sum(turned)} attentions: queries, keys and values turned in each head"
    if not all(turned):
        yield (
            f"{len(turned) - sum(turned)} attentions: heads left as they are, for something lies "
            "between them and their linear layers"
        )
