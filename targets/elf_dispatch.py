"""Whether an AArch64 ELF file asks at run time what the CPU can do; the rule is `targets/elf.py`'s.

The rest of a file cannot tell: code that is skipped on an older CPU looks like code that is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from edgeship.targets.elf_instructions import (
    CALL,
    JUMP,
    READS_ID,
    TAKES_ATOMICS_BIT,
    branch_targets,
    has_instruction,
    stub_slots,
)
from edgeship.targets.elf_symbols import (
    Code,
    read_bindings,
    read_constants,
    read_symbols,
)

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_ASKING: Final = ("getauxval", "__getauxval")
"""The C library's, getauxval(3); libgcc calls it by the second name."""
_ASKED_ELSEWHERE: Final = ("cpuinfo_", "__aarch64_cpu_features", "android_getCpu", "elf_aux_info")
"""Beginnings of names: the library cpuinfo, libgcc and compiler-rt (function multiversioning), the
NDK, FreeBSD."""
_AUXILIARY: Final = (b"getauxval\0", b"/proc/self/auxv\0")
"""Texts of programs that look the function up by its name, or read the vector themselves: Rust's
std_detect does both."""
_GO: Final = ".go.buildinfo"
"""Section of what Go linked, whose run-time library reads the auxiliary vector itself."""
_RESULT_USE: Final = 8
"""Words after a call in which its result is taken; libgcc 12 does in the first, clang at -O0 in the
sixth (measured)."""


def asks_cpu(file: ELFFile, codes: Sequence[Code]) -> bool:
    """Whether anything in the file asks, but for libgcc's outlined atomics.

    A statically linked file is full of its C library's own asking; only calls of getauxval count
    in it. Without a symbol table these cannot be found, and it is taken to ask.
    """
    if file.get_section_by_name(_GO) is not None:
        return True
    if any(text in read_constants(file) for text in _AUXILIARY):
        return True
    dynamic = read_symbols(file, ".dynsym")
    if dynamic is None:
        static = read_symbols(file, ".symtab")
        return static is None or _uses_result(codes, static.addresses(_ASKING))
    imports = dynamic.imports()
    if any(name.startswith(_ASKED_ELSEWHERE) for name in imports) or dynamic.has_ifunc:
        return True
    if any(has_instruction(code.words, READS_ID) for code in codes):
        return True
    return _is_choosing(file, codes, {imports[name] for name in _ASKING if name in imports})


def _is_choosing(file: ELFFile, codes: Sequence[Code], asking: set[int]) -> bool:
    bindings = read_bindings(file, asking)
    if bindings.has_irelative or bindings.others:
        return True  # a pointer to the function: who calls it cannot be seen
    slots = [slot for number in asking for slot in bindings.slots[number]]
    return bool(slots) and _uses_result(codes, _stubs(codes, slots))


def _stubs(codes: Sequence[Code], slots: Sequence[int]) -> list[int]:
    """Addresses at which code calls functions that the loader put into these slots."""
    addresses: list[int] = []
    for code in codes:
        stubs = stub_slots(code.words, code.address)
        starts = stubs[np.isin(stubs[:, 1], slots), 0]
        addresses += [*starts.tolist(), *(starts - 4).tolist()]  # behind BTI C, where there is one
    return addresses


def _uses_result(codes: Sequence[Code], functions: Iterable[int]) -> bool:
    """Whether any call of these takes more of the result than the bit of HWCAP_ATOMICS."""
    targets = list(functions)
    for code in codes:
        if len(_calls(code, JUMP, targets)):
            return True  # the result is the caller's
        for place in _calls(code, CALL, targets):
            at = (int(place) - code.address) // 4 + 1
            if not has_instruction(code.words[at : at + _RESULT_USE], TAKES_ATOMICS_BIT):
                return True
    return False


def _calls(code: Code, encoding: tuple[int, int, str], targets: Sequence[int]) -> np.ndarray:
    branches = branch_targets(code.words, encoding, code.address)
    places: np.ndarray = branches[np.isin(branches[:, 1], targets), 0]
    return places
