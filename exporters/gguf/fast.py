"""Fast: compiled kernels in place of ggml's for the kinds whose search takes most of the time.

They need numba (the extra [fast]), apply where there is no importance, and are used only after they
have given ggml's bytes on this machine: a ggml that was compiled to fuse multiplication and
addition rounds otherwise, and then it is ggml that llama.cpp's users have.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.library import Bytes, Floats, Ggml, Kernel

if TYPE_CHECKING:
    _Code = Callable[[Floats, Bytes, Bytes], None]

WORTH_S: Final = 2.0
"""Seconds that a kernel must save: about what it takes to compile one, which is done once for the
user (measured: 1.2 to 2.6 s each, 3 s more for the first; 0.5 s in all from the second run on)."""
_SAVED_NS: Final[Mapping[Kind, float]] = {
    Kind.Q4_K: 54.0,
    Kind.Q5_K: 45.0,
    Kind.Q6_K: 21.0,
    Kind.IQ4_NL: 175.0,
    Kind.IQ4_XS: 173.0,
}
"""Saved for each weight on one core (measured, with AVX-512)."""
FAST_KINDS: Final = tuple(_SAVED_NS)
"""The kinds that have a kernel."""
_PROOF_ROWS: Final = 64
_PROOF_COLUMNS: Final = 2048
_SEED: Final = 20


@dataclass(frozen=True, kw_only=True)
class FastKernels:
    """Kernels to give to `Ggml`, and why others are not among them.

    Attributes:
        kernels: By kind; each has been proven and compiled, so that threads can start at once.
        notes: One line for each kind whose kernel was wanted but cannot be used.
    """

    kernels: Mapping[Kind, Kernel] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Which kernels are in use, for the story of a build."""
        return (
            f"compiled kernels for {', '.join(self.kernels)}" if self.kernels else "ggml's kernels"
        )


def fast_kernels(weights: Mapping[Kind, int], *, worth_s: float = WORTH_S) -> FastKernels:
    """Compile and prove the kernels that pay for `weights` to be quantized without importance.

    Args:
        weights: How many weights of each kind there are to quantize.
        worth_s: Seconds that a kernel must save to be compiled; 0 for all kinds of `weights`.

    Raises:
        RequirementMissing: llama-cpp-python is not installed.
    """
    wanted = [
        kind
        for kind, saved_ns in _SAVED_NS.items()
        if kind in weights and weights[kind] * saved_ns * 1e-9 >= worth_s
    ]
    if not wanted or importlib.util.find_spec("numba") is None:
        return FastKernels()
    try:
        codes = {kind: _code(kind) for kind in wanted}
    except ImportError as error:  # an installed numba refuses a numpy that is too new for it
        return FastKernels(notes=(f"no compiled kernels: numba cannot be imported: {error}",))
    ggml = Ggml()
    kernels: dict[Kind, Kernel] = {}
    notes = []
    for kind, code in codes.items():
        kernel = _FastKernel(kind, code, ggml)
        try:
            is_proven = _is_proven(kind, kernel, ggml)
        except OSError as error:  # a full disk below numba's cache
            notes.append(f"no compiled kernel for {kind}: it cannot be kept: {error}")
            continue
        if is_proven:
            kernels[kind] = kernel
        else:
            notes.append(f"no compiled kernel for {kind}: the installed ggml rounds otherwise")
    return FastKernels(kernels=kernels, notes=tuple(notes))


def _code(kind: Kind) -> _Code:
    """The compiled function of a kind, not yet compiled."""
    match kind:
        case Kind.Q4_K:
            from edgeship.exporters.gguf.fast_q4_k import quantize_q4_k

            return quantize_q4_k
        case Kind.Q5_K:
            from edgeship.exporters.gguf.fast_q5_k import quantize_q5_k

            return quantize_q5_k
        case Kind.IQ4_NL:
            from edgeship.exporters.gguf.fast_iq4_nl import quantize_iq4_nl

            return quantize_iq4_nl
        case Kind.IQ4_XS:
            from edgeship.exporters.gguf.fast_iq4_xs import quantize_iq4_xs

            return quantize_iq4_xs
        case Kind.Q6_K:
            from edgeship.exporters.gguf.fast_q6_k import quantize_q6_k

            return quantize_q6_k
        case _:
            raise KeyError(kind)


class _FastKernel:
    """A compiled function, with ggml for the blocks that it leaves."""

    def __init__(self, kind: Kind, code: _Code, ggml: Ggml) -> None:
        self._kind = kind
        self._code = code
        self._ggml = ggml

    def __call__(self, rows: Floats, out: Bytes, /) -> None:
        """Fill `out`; blocks do not depend on each other, so any of them can be ggml's."""
        blocks = rows.reshape(-1, self._kind.block)
        stored = out.reshape(len(blocks), self._kind.block_bytes)
        is_done = np.empty(len(blocks), np.uint8)
        self._code(blocks, stored, is_done)
        left = np.flatnonzero(is_done == 0)
        if left.size:
            rest = np.empty((left.size, self._kind.block_bytes), np.uint8)
            self._ggml.quantize(self._kind, blocks[left], None, rest)
            stored[left] = rest


def _is_proven(kind: Kind, kernel: Kernel, ggml: Ggml) -> bool:
    """Whether both give the same bytes for weights of many magnitudes; compiles the kernel."""
    random = np.random.default_rng(_SEED)
    shape = (_PROOF_ROWS, _PROOF_COLUMNS)
    rows = random.normal(0.0, 0.02, shape) * np.exp(random.normal(0.0, 1.0, (_PROOF_ROWS, 1)))
    weights = rows.astype(np.float32)
    theirs, ours = (
        np.empty((_PROOF_ROWS, kind.row_bytes(_PROOF_COLUMNS)), np.uint8) for _ in range(2)
    )
    ggml.quantize(kind, weights, None, theirs)
    kernel(weights, ours)
    return np.array_equal(theirs, ours)
