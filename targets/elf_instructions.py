"""AArch64 instructions beyond the base architecture, found in machine code by mask and value.

Encodings are of the Arm Architecture Reference Manual for A-profile (DDI 0487), C6.2 and C7.2, each
by its name there; the features are those of the Linux kernel (Documentation/arch/arm64/elf_hwcaps),
as /proc/cpuinfo prints them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

_Encoding = tuple[int, int, str]
"""Bits that are fixed, their value, and the instruction."""

ENCODINGS: Final[Mapping[str, tuple[_Encoding, ...]]] = {
    "aes": ((0xFFFFCC00, 0x4E284800, "AESE, AESD, AESMC, AESIMC"),),
    "pmull": ((0xBFE0FC00, 0x0EE0E000, "PMULL, PMULL2 (1Q)"),),
    "sha1": (
        (0xFFE0CC00, 0x5E000000, "SHA1C, SHA1P, SHA1M, SHA1SU0"),
        (0xFFFFEC00, 0x5E280800, "SHA1H, SHA1SU1"),
    ),
    "sha2": (
        (0xFFE0EC00, 0x5E004000, "SHA256H, SHA256H2"),
        (0xFFE0FC00, 0x5E006000, "SHA256SU1"),
        (0xFFFFFC00, 0x5E282800, "SHA256SU0"),
    ),
    "crc32": ((0x7FE0E000, 0x1AC04000, "CRC32, CRC32C"),),
    "atomics": (
        (0x3FA07C00, 0x08A07C00, "CAS"),
        (0xBFA07C00, 0x08207C00, "CASP"),
        (0x3F20FC00, 0x38208000, "SWP"),
        (0x3F208C00, 0x38200000, "LDADD, LDCLR, LDEOR, LDSET, LDSMAX, LDSMIN, LDUMAX, LDUMIN"),
    ),
    "lrcpc": ((0x3FFFFC00, 0x38BFC000, "LDAPR"),),
    "asimdrdm": (
        (0xBF20F400, 0x2E008400, "SQRDMLAH, SQRDMLSH (vector)"),
        (0xBF00D400, 0x2F00D000, "SQRDMLAH, SQRDMLSH (by element)"),
    ),
    "fphp": (
        (0xFFE0CC00, 0x1EE00800, "FMUL, FDIV, FADD, FSUB (half, scalar)"),
        (0xFFE00000, 0x1FC00000, "FMADD, FMSUB (half)"),
        (0xFFE0FC07, 0x1EE02000, "FCMP, FCMPE (half)"),
    ),
    "asimdhp": (
        (0xBF60FC00, 0x0E400C00, "FMLA, FMLS (vector, half)"),
        (0xBF60FC00, 0x0E401400, "FADD, FSUB (vector, half)"),
        (0xBF60FC00, 0x0E403400, "FMAX, FMIN (vector, half)"),
        (0xBFE0FC00, 0x2E401C00, "FMUL (vector, half)"),
        (0xBFE0FC00, 0x2E403C00, "FDIV (vector, half)"),
        (0xBFC0B400, 0x0F001000, "FMLA, FMLS (by element, half)"),
        (0xBFC0F400, 0x0F009000, "FMUL (by element, half)"),
    ),
    "asimddp": (
        (0x9FE0FC00, 0x0E809400, "SDOT, UDOT (vector)"),
        (0x9FC0F400, 0x0F80E000, "SDOT, UDOT (by element)"),
    ),
    "asimdfhm": (
        (0xBF60FC00, 0x0E20EC00, "FMLAL, FMLSL (vector)"),
        (0xBF60FC00, 0x2E20CC00, "FMLAL2, FMLSL2 (vector)"),
        (0xBFC0B400, 0x0F800000, "FMLAL, FMLSL (by element)"),
        (0xBFC0B400, 0x2F808000, "FMLAL2, FMLSL2 (by element)"),
    ),
    "i8mm": (
        (0xDFE0FC00, 0x4E80A400, "SMMLA, UMMLA"),
        (0xFFE0FC00, 0x4E80AC00, "USMMLA"),
        (0xBFE0FC00, 0x0E809C00, "USDOT (vector)"),
        (0xBFC0F400, 0x0F80F000, "USDOT (by element)"),
        (0xBFC0F400, 0x0F00F000, "SUDOT (by element)"),
    ),
    "bf16": (
        (0xFFE0FC00, 0x6E40EC00, "BFMMLA"),
        (0xBFE0FC00, 0x2E40FC00, "BFDOT (vector)"),
        (0xBFC0F400, 0x0F40F000, "BFDOT (by element)"),
        (0xBFE0FC00, 0x2EC0FC00, "BFMLALB, BFMLALT (vector)"),
        (0xBFC0F400, 0x0FC0F000, "BFMLALB, BFMLALT (by element)"),
        (0xBFFFFC00, 0x0EA16800, "BFCVTN"),
        (0xFFFFFC00, 0x1E634000, "BFCVT"),
    ),
    # what a loop over vectors of unknown length begins with; CNTD alone is in libgcc's unwinder
    "sve": (
        (0xFF3EFC10, 0x2518E000, "PTRUE, PTRUES"),
        (0xFF20E000, 0x25200000, "WHILELT, WHILELE, WHILELO, WHILELS"),
    ),
}
CALL: Final = (0xFC000000, 0x94000000, "BL")
JUMP: Final = (0xFC000000, 0x14000000, "B")
READS_ID: Final = (
    (0xFFFFFC00, 0xD5380400, "MRS ID_AA64*_EL1"),
    (0xFFFFFFE0, 0xD5380000, "MRS MIDR_EL1"),
)
"""A program that reads what the CPU can do, or which it is; the kernel answers in its place
(Documentation/arch/arm64/cpu-feature-registers)."""
TAKES_ATOMICS_BIT: Final = ((0x7FBFFFE0, 0x53082000, "UBFX Rd, R0, #8, #1"),)
"""HWCAP_ATOMICS, bit 8 of AT_HWCAP, out of a call's result."""
_SKIPS_ATOMIC: Final = (0xFF00001F, 0x34000010, "CBZ W16")
"""Before each LSE instruction of an outlined atomic: libgcc's config/aarch64/lse.S and
compiler-rt's aarch64/lse.S, which load __aarch64_have_lse_atomics into W16."""
_UNALLOCATED: Final = (
    (0x9E000000, 0x00000000, "reserved; with bit 31, SME"),
    (0x1E000000, 0x02000000, "unallocated"),
    (0x1E000000, 0x06000000, "unallocated"),
)
"""Words that are no instruction, C4.1 "A64 instruction set encoding": 5 of 32 random ones."""
_NEIGHBOURS: Final = 16
_STRANGERS: Final = 2
"""A choice: so many unallocated words among so many on each side, and a hit is data. Of random
words 97 % are told by it; zeros do not count, as they fill gaps between functions."""
_BLOCK: Final = 1 << 20
"""A choice: words that are looked at together, which fit into a cache."""


def feature_instructions(words: np.ndarray) -> dict[str, np.ndarray]:
    """Where each feature's instructions are.

    LSE instructions in outlined atomics are left out: these run only where the CPU has them; and so
    is what stands among words that are no instructions: tables in hand-written assembly.

    Args:
        words: uint32[N] of code; not modified.

    Returns:
        By feature, of those that occur, int64 positions in `words`, ascending.
    """
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        for feature, encodings in ENCODINGS.items():
            hits = np.flatnonzero(_matches(block, encodings))
            if len(hits):
                found.setdefault(feature, []).append(hits + start)
    places = {
        feature: _among_code(words, np.concatenate(parts)) for feature, parts in found.items()
    }
    if "atomics" in places:
        before = words[np.maximum(places["atomics"] - 1, 0)]
        places["atomics"] = places["atomics"][~_matches(before, (_SKIPS_ATOMIC,))]
    return {feature: hits for feature, hits in places.items() if len(hits)}


def has_instruction(words: np.ndarray, encodings: tuple[_Encoding, ...]) -> bool:
    """Whether any word is one of these."""
    return bool(_matches(words, encodings).any())


def branch_targets(words: np.ndarray, encoding: _Encoding, address: int) -> np.ndarray:
    """int64[B, 2]: address of each B or BL, and where it goes; `address` is that of `words[0]`."""
    at = np.flatnonzero(_matches(words, (encoding,)))
    offset = (words[at] & np.uint32(0x03FFFFFF)).astype(np.int64)
    offset -= (offset >> 25) << 26  # imm26 is signed, in words
    places = address + 4 * at
    return np.stack([places, places + 4 * offset], axis=1)


def stub_slots(words: np.ndarray, address: int) -> np.ndarray:
    """int64[S, 2]: address of each stub of a PLT, and of the slot that it jumps through.

    A stub is `ADRP X16, page; LDR X17, [X16, #offset]; ...` (ELF for the Arm 64-bit Architecture,
    IHI 0056, "Procedure Linkage Table").
    """
    is_start = _matches(words[:-1], ((0x9F00001F, 0x90000010, "ADRP X16"),))
    is_load = _matches(words[1:], ((0xFFC003FF, 0xF9400211, "LDR X17, [X16, #]"),))
    at = np.flatnonzero(is_start & is_load)
    page, load = words[at].astype(np.int64), words[at + 1].astype(np.int64)
    pages = ((page >> 5) & 0x7FFFF) << 2 | (page >> 29) & 3
    pages -= (pages >> 20) << 21  # imm21 is signed, in pages of 4 KiB
    places = address + 4 * at
    slots = (places & ~0xFFF) + (pages << 12) + 8 * ((load >> 10) & 0xFFF)
    return np.stack([places, slots], axis=1)


def _among_code(words: np.ndarray, places: np.ndarray) -> np.ndarray:
    around = places[:, np.newaxis] + np.arange(-_NEIGHBOURS, _NEIGHBOURS + 1)
    near = words[np.clip(around, 0, len(words) - 1)].ravel()
    is_strange = _matches(near, _UNALLOCATED) & (near != 0)
    kept: np.ndarray = places[is_strange.reshape(around.shape).sum(axis=1) < _STRANGERS]
    return kept


def _matches(words: np.ndarray, encodings: tuple[_Encoding, ...]) -> np.ndarray:
    result = np.zeros(len(words), np.bool_)
    for mask, value, _ in encodings:
        result |= (words & np.uint32(mask)) == np.uint32(value)
    return result
