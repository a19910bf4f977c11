"""Choice: which file type a board runs well, by its CPU's features, its GPU, the model's widths.

llama.cpp repacks some kinds when it loads them, so that a kernel computes several rows at once;
without that, reading a prompt takes about twice as long (1.94 times for Q4_K on an Apple M4 held
to the features of a Cortex-A76, by llama.cpp's pull request 17494). Writing an answer waits for
memory, where the smaller file wins. Nothing here was timed on a board.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple

from edgeship.exporters.gguf.kinds import Kind
from edgeship.targets import Arch

if TYPE_CHECKING:
    from edgeship.exporters.gguf.substitution import Substitution
    from edgeship.targets import Gpu
    from edgeship.targets.target import Cpu

_BYTE_PRODUCTS: Final = (6, 1)
"""Compute capability from which a CUDA GPU multiplies bytes. Source: ggml-cuda/common.cuh of
llama.cpp 0.5.0, GGML_CUDA_CC_DP4A; below it K-quants have no integer kernels."""
_REPACKED: Final = {
    Arch.AARCH64: (
        ("i8mm", "asimddp"),
        frozenset({Kind.Q4_0, Kind.Q8_0, Kind.IQ4_NL, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K}),
    ),
    Arch.X86_64: (("avx2",), frozenset({Kind.Q4_0, Kind.IQ4_NL, Kind.Q4_K})),
}
"""Any one of these features, and what is repacked then, in matrices of a multiple of 8 rows.
Source: ggml-cpu/repack.cpp of llama.cpp 0.5.0, `ggml_repack_get_optimal_repack_type`."""


class Recommendation(NamedTuple):
    """A file type as the project file writes it, and why, in one clause for people."""

    file_type: str
    reason: str


def recommended_type(
    arch: Arch, features: Collection[str], gpu: Gpu | None, widths: Collection[int]
) -> Recommendation:
    """The 4-bit type for a board.

    Args:
        arch: Of its CPU.
        features: Of its CPU, by Linux hwcap names; those of a library built for it.
        gpu: That llama.cpp can use there; None where its CUDA is too old for llama.cpp.
        widths: Lengths of the rows of the matrices; empty where they are not known, which is
            taken as fitting.
    """
    kinds = repacked_kinds(arch, features)
    feature = _repacking_feature(arch, features)
    unfit = sorted(width for width in set(widths) if not Kind.Q4_K.fits(width))
    if gpu is not None and _multiplies_bytes(gpu):
        place, has_kernels = f"its GPU of compute capability {gpu.sm} has kernels for", True
    else:
        place, has_kernels = f"with {feature} its CPU has repacked kernels for", bool(kinds)
    if not has_kernels:
        reason = f"its CPU repacks no kind ({_missing(arch)}): Q4_0 has the cheapest plain kernels"
        return Recommendation("q4_0", reason + _unquantized(unfit))
    if not unfit:
        return Recommendation("q4_k_m", f"{place} Q4_K, and the rows are multiples of 256")
    reason = (
        f"{place} IQ4_NL; rows of {_listed(unfit)} are no multiple of 256, so that Q4_K would "
        f"become the larger Q5_0"
    )
    return Recommendation("iq4_nl", reason + _unquantized(unfit))


def choice_notes(cpu: Cpu, file_type: str, substituted: Collection[Substitution]) -> list[str]:
    """A line for people where widths make another type the better one on the board's CPU."""
    widths = {one.columns for one in substituted}
    if not widths:
        return []
    better = recommended_type(cpu.arch, cpu.features, None, widths)
    if better.file_type == file_type:
        return []
    return [f"{better.file_type} may suit the board's CPU better: {better.reason}"]


def repacked_kinds(arch: Arch, features: Collection[str]) -> frozenset[Kind]:
    """Kinds for which llama.cpp has kernels over several rows on that CPU."""
    if _repacking_feature(arch, features) is None:
        return frozenset()
    return _REPACKED[arch][1]


def _repacking_feature(arch: Arch, features: Collection[str]) -> str | None:
    choices = _REPACKED[arch][0] if arch in _REPACKED else ()
    return next((choice for choice in choices if choice in features), None)


def _missing(arch: Arch) -> str:
    if arch not in _REPACKED:
        return f"{arch} has no such kernels"
    return f"it promises no {' and no '.join(reversed(_REPACKED[arch][0]))}"


def _multiplies_bytes(gpu: Gpu) -> bool:
    major, _, minor = gpu.sm.partition(".")
    return (int(major), int(minor or 0)) >= _BYTE_PRODUCTS


def _unquantized(unfit: Collection[int]) -> str:
    """What no file type changes: blocks have 32 weights at least."""
    odd = [width for width in unfit if not Kind.Q4_0.fits(width)]
    return f"; rows of {_listed(odd)} stay F16 in every type" if odd else ""


def _listed(widths: Collection[int]) -> str:
    return ", ".join(map(str, widths))
