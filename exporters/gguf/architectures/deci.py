"""Deci: Llama with widths of its own for each layer, for pruned checkpoints.

llama.cpp's llama and qwen2 read arrays of widths, but load every layer at the first one's; its
deci takes each at its own, without attention too. It rotates interleaved pairs, so q and k of a
Qwen2 are permuted for it as those of a Llama are.
Source: src/models/deci.cpp and src/llama-model.cpp (`load_hparams`) of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.architectures.decoder import Decoder
from edgeship.exporters.gguf.architectures.llama import LLAMA
from edgeship.exporters.gguf.architectures.widths import Widths

DECI: Final = replace(LLAMA, architecture="deci", stores_pooling=True)


def fitting_decoder(
    decoder: Decoder, widths: Widths, hidden: int, directory: Path
) -> tuple[Decoder, tuple[str, ...]]:
    """`decoder` where llama.cpp loads these widths with it, else deci; and lines that say so.

    Raises:
        ExportFailed: No architecture of llama.cpp computes a decoder of these widths.
    """
    is_wide_enough = decoder.takes_any_heads or widths.heads[0] * widths.head_dim == hidden
    if widths.is_uniform and is_wide_enough and widths.heads[0]:
        reasons: tuple[str, ...] = ()
        chosen = decoder
    elif widths.is_uniform and widths.heads[0]:
        reasons = (
            f"written as deci: llama.cpp's {decoder.architecture} takes heads that are together as"
            f" wide as the model ({hidden}), these are {widths.heads[0] * widths.head_dim}",
        )
        chosen = _as_deci(decoder)
    else:
        reasons = (
            f"written as deci: llama.cpp's {decoder.architecture} takes layers of one width only",
        )
        chosen = _as_deci(decoder)
    problems = list(_problems(decoder, chosen, widths, directory))
    if problems:
        raise ExportFailed(*problems)
    without = [layer for layer, heads in enumerate(widths.heads) if not heads]
    removed = (f"no attention in layers {', '.join(map(str, without))}",) if without else ()
    return chosen, (*reasons, *removed)


def _as_deci(decoder: Decoder) -> Decoder:
    return replace(
        DECI,
        rope_kinds=decoder.rope_kinds,
        stores_pooling=decoder.stores_pooling,
        biases=decoder.biases,
    )


def _problems(
    decoder: Decoder, chosen: Decoder, widths: Widths, directory: Path
) -> Iterator[Problem]:
    where = str(directory)
    if chosen is not decoder and decoder.normalises_heads:
        yield Problem(
            where=where,
            what=f"the layers of this {decoder.architecture} have unequal widths",
            expected="equal heads and feed-forward widths: llama.cpp's deci, which takes unequal "
            "ones, has no normalisation of q and k",
            found=f"heads {_shown(widths.heads)}, feed-forward {_shown(widths.ffn)}",
            remedy="prune all layers alike, or by whole layers",
        )
    if not widths.heads[0]:
        yield Problem(
            where=where,
            what="layer 0 has no attention",
            expected="heads in layer 0, by which llama.cpp tells the width of a head",
            remedy="keep the attention of layer 0",
        )
    for layer, (heads, kv_heads, ffn) in enumerate(
        zip(widths.heads, widths.kv_heads, widths.ffn, strict=True)
    ):
        if not ffn:
            yield Problem(
                where=f"{where}: layer {layer}",
                what="the layer has no feed-forward part, and llama.cpp loses its attention then",
                remedy="keep a few of its columns, or remove the whole layer",
            )
        if heads and (not kv_heads or heads % kv_heads):
            yield Problem(
                where=f"{where}: layer {layer}",
                what="the query heads are not divided evenly among the key heads",
                expected=f"a multiple of {kv_heads}",
                found=str(heads),
                remedy="prune whole groups of query heads",
            )


def _shown(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values))
