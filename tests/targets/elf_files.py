"""Tiny AArch64 shared libraries, put together byte by byte (System V ABI, IHI 0056)."""

import struct
from collections.abc import Mapping, Sequence

STUB = 0x2000
SLOT = 0x3000
TEXT = 0x1000
ADRP_X16_SLOT = 0x90000010 | (1 << 29)  # SLOT is one page above STUB
LDR_X17 = 0xF9400211
BR_X17 = 0xD61F0220
RET = 0xD65F03C0
MOV_W0_16 = 0x52800200
SDOT = 0x4E829420


def call_of_stub(position: int) -> int:
    """BL from the word with this number of .text to the stub."""
    return 0x94000000 | ((STUB - TEXT) // 4 - position) & 0x3FFFFFF


def library(
    text: Sequence[int],
    *,
    imports: Sequence[str] = (),
    versions: Mapping[str, Sequence[tuple[str, int]]] | None = None,
    alignment: int = 0x10000,
    mapping: Sequence[tuple[str, int]] = (),
    rodata: bytes = b"",
    relocation: int = 1026,
) -> bytes:
    """A library with the code `text`, and one stub through which its first import is called.

    `versions` are (name, flags) by file; `mapping` are symbols like ("$d", word of .text).
    """
    strings = bytearray(b"\0")

    def string(name: str) -> int:
        strings.extend(name.encode() + b"\0")
        return len(strings) - len(name.encode()) - 1

    dynsym = bytes(24) + b"".join(symbol(string(name), 0) for name in imports)
    needs, entries = bytearray(), list((versions or {}).items())
    for position, (file, names) in enumerate(entries):
        is_last = position == len(entries) - 1
        step = 0 if is_last else 16 + 16 * len(names)
        needs += struct.pack("<HHIII", 1, len(names), string(file), 16, step)
        for index, (name, flags) in enumerate(names):
            follows = 16 if index < len(names) - 1 else 0
            needs += struct.pack("<IHHII", 0, flags, 2 + index, string(name), follows)
    dynamic = b"".join(struct.pack("<QQ", 1, string(file)) for file, _ in entries) + bytes(16)
    rela = struct.pack("<QQq", SLOT, 1 << 32 | relocation, 0) if imports else b""
    symtab, labels = bytes(24), bytearray(b"\0")
    for name, word in mapping:
        symtab += symbol(len(labels), 1, TEXT + 4 * word)
        labels += name.encode() + b"\0"

    # name, type, flags, address, contents, link, info, size of an entry
    sections: list[tuple[str, int, int, int, bytes, int, int, int]] = [
        (".text", 1, 6, TEXT, packed(text), 0, 0, 0),
        (".plt", 1, 6, STUB, packed((ADRP_X16_SLOT, LDR_X17, 0x91000210, BR_X17)), 0, 0, 0),
        (".dynsym", 11, 2, 0, dynsym, 4, 1, 24),
        (".dynstr", 3, 2, 0, bytes(strings), 0, 0, 0),
        (".dynamic", 6, 3, 0, dynamic, 4, 0, 16),
        (".rela.plt", 4, 2, 0, rela, 3, 2, 24),
        (".rodata", 1, 2, 0, rodata, 0, 0, 0),
    ]
    if entries:
        sections.append((".gnu.version_r", 0x6FFFFFFE, 2, 0, bytes(needs), 4, len(entries), 0))
    if mapping:
        sections.append((".symtab", 2, 0, 0, symtab, len(sections) + 2, 1, 24))
        sections.append((".strtab", 3, 0, 0, bytes(labels), 0, 0, 0))
    return _assembled(sections, alignment)


def symbol(name: int, section: int, value: int = 0) -> bytes:
    return struct.pack("<IBBHQQ", name, 0x10, 0, section, value, 0)


def packed(words: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def _assembled(
    sections: list[tuple[str, int, int, int, bytes, int, int, int]], alignment: int
) -> bytes:
    names = bytearray(b"\0")
    body, headers = bytearray(), bytes(64)
    for name, kind, flags, address, content, link, info, entry in [
        *sections,
        (".shstrtab", 3, 0, 0, b"", 0, 0, 0),
    ]:
        at = len(names)
        names += name.encode() + b"\0"
        kept = bytes(names) if name == ".shstrtab" else content
        body += bytes(-len(body) % 8)
        headers += struct.pack(
            "<IIQQQQIIQQ",
            at,
            kind,
            flags,
            address,
            120 + len(body),
            len(kept),
            link,
            info,
            8,
            entry,
        )
        body += kept
    body += bytes(-len(body) % 8)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    count = len(sections) + 2
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 120 + len(body), 0, 64, 56, 1, 64, count, count - 1
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 120, 120, alignment)
    return header + load + bytes(body) + headers
