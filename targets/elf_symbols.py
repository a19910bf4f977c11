"""Code, symbols and relocations of an AArch64 ELF file, as arrays.

Formats: System V Application Binary Interface, "Symbol Table" and "Relocation"; ELF for the Arm
64-bit Architecture (IHI 0056). All of it little-endian, as instructions always are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import Section

_SYMBOL: Final = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("section", "<u2"),
        ("value", "<u8"),
        ("size", "<u8"),
    ]
)
_RELOCATION: Final = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_IFUNC: Final = 10
"""STT_GNU_IFUNC, Linux gABI extensions."""
_JUMP_SLOT: Final = 1026
_IRELATIVE: Final = 1032
"""R_AARCH64_JUMP_SLOT and R_AARCH64_IRELATIVE, IHI 0056, "Dynamic relocations"."""
_EXECUTABLE: Final = 0x4
"""SHF_EXECINSTR."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """One section of instructions.

    Attributes:
        address: Where the file wants its first word.
        words: uint32[N]; what its mapping symbols call data is 0, which is no instruction that
            does anything (UDF #0).
    """

    address: int
    words: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Symbols:
    """One symbol table."""

    entries: np.ndarray
    names: bytes

    def name(self, index: int) -> str:
        """Of the entry with this number."""
        start = int(self.entries["name"][index])
        return self.names[start : self.names.index(b"\0", start)].decode(errors="replace")

    def imports(self) -> dict[str, int]:
        """Names that other files have to give, and the numbers of their entries."""
        missing = np.flatnonzero(self.entries["section"] == 0)
        return {self.name(int(index)): int(index) for index in missing[1:]}  # entry 0 is no symbol

    def addresses(self, wanted: Collection[str]) -> list[int]:
        """Of those symbols of this file that have one of the names."""
        raw = {name.encode() for name in wanted}
        starts = {at for item in raw for at in _occurrences(self.names, b"\0" + item + b"\0")}
        entries = self.entries
        is_wanted = np.isin(entries["name"], [at + 1 for at in starts]) & (entries["section"] != 0)
        return [int(value) for value in entries["value"][is_wanted]]

    @property
    def has_ifunc(self) -> bool:
        """Whether any function of this file is chosen by the loader."""
        entries = self.entries
        return bool(((entries["info"] & 0xF == _IFUNC) & (entries["section"] != 0)).any())


@dataclass(frozen=True, kw_only=True)
class Bindings:
    """What the loader fills in.

    Attributes:
        slots: Addresses that it fills with a function, which a PLT jumps through, by symbol number.
        others: Numbers of symbols that it puts elsewhere.
        has_irelative: Whether it calls functions that choose functions.
    """

    slots: Mapping[int, tuple[int, ...]]
    others: frozenset[int]
    has_irelative: bool


def read_symbols(file: ELFFile, name: str) -> Symbols | None:
    """Table ".symtab" or ".dynsym"; None where the file has none."""
    section = file.get_section_by_name(name)
    if section is None:
        return None
    entries = np.frombuffer(section.data(), _SYMBOL)
    return Symbols(entries=entries, names=file.get_section(section["sh_link"]).data() + b"\0")


def read_bindings(file: ELFFile, wanted: Collection[int]) -> Bindings:
    """Relocations by the loader, of the symbols with these numbers."""
    tables = [
        np.frombuffer(section.data(), _RELOCATION)
        for section in file.iter_sections()
        if section["sh_type"] == "SHT_RELA" and section["sh_size"]
    ]
    table = np.concatenate([*tables, np.empty(0, _RELOCATION)])
    kind, symbol = table["info"] & 0xFFFFFFFF, table["info"] >> 32
    is_slot = kind == _JUMP_SLOT
    is_wanted = np.isin(symbol, list(wanted))
    slots = {
        number: tuple(int(at) for at in table["offset"][is_slot & (symbol == number)])
        for number in wanted
    }
    others = frozenset(int(number) for number in symbol[is_wanted & ~is_slot])
    return Bindings(slots=slots, others=others, has_irelative=bool((kind == _IRELATIVE).any()))


def read_code(file: ELFFile) -> list[Code]:
    """Every section of instructions, data in it left out where the file says what is data."""
    symbols = read_symbols(file, ".symtab")
    codes = []
    for index, section in enumerate(file.iter_sections()):
        if section["sh_flags"] & _EXECUTABLE and section["sh_type"] == "SHT_PROGBITS":
            content = section.data()
            words = np.frombuffer(content, "<u4", count=len(content) // 4)
            address = int(section["sh_addr"])
            if symbols is not None:
                words = _without_data(words, address, symbols, index)
            codes.append(Code(address=address, words=words))
    return codes


def read_constants(file: ELFFile) -> bytes:
    """Bytes of `.rodata`; empty where there is none."""
    section: Section | None = file.get_section_by_name(".rodata")
    return b"" if section is None else section.data()


def _without_data(words: np.ndarray, address: int, symbols: Symbols, section: int) -> np.ndarray:
    entries = symbols.entries[symbols.entries["section"] == section]
    names = np.frombuffer(symbols.names + b"\0\0\0", np.uint8)
    start = entries["name"].astype(np.int64)
    is_mapping = (names[start] == ord("$")) & np.isin(names[start + 2], (0, ord(".")))
    is_data = is_mapping & (names[start + 1] == ord("d"))
    if not is_data.any():
        return words
    is_code = is_mapping & (names[start + 1] == ord("x"))
    begins = np.sort(entries["value"][is_data]).astype(np.int64)
    ends = np.sort(entries["value"][is_code]).astype(np.int64)
    ends = np.append(ends, address + 4 * len(words))
    until = ends[np.searchsorted(ends[:-1], begins, side="right")]
    changes = np.zeros(len(words) + 1, np.int32)
    first = np.clip((begins - address) // 4, 0, len(words))
    last = np.clip((until - address + 3) // 4, 0, len(words))
    np.add.at(changes, first, 1)
    np.add.at(changes, np.maximum(first, last), -1)
    return np.where(np.cumsum(changes[:-1]) > 0, np.uint32(0), words)


def _occurrences(text: bytes, part: bytes) -> list[int]:
    places, at = [], text.find(part)
    while at >= 0:
        places.append(at)
        at = text.find(part, at + 1)
    return places
