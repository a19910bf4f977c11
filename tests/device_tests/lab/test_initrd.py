from hypothesis import given
from hypothesis import strategies as st

from edgeship.device_tests.lab.initrd import newc_archive


def read_newc(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode and contents, from Documentation/driver-api/early-userspace/buffer-format.rst."""
    entries: list[tuple[str, int, bytes]] = []
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701", offset
        numbers = [
            int(archive[offset + 6 + 8 * index : offset + 14 + 8 * index], 16)
            for index in range(13)
        ]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = archive[offset + 110 : offset + 110 + name_size]
        assert name.endswith(b"\0")
        start = (offset + 110 + name_size + 3) // 4 * 4
        content = archive[start : start + size]
        assert len(content) == size
        offset = (start + size + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            assert offset == len(archive)
            return entries
        entries.append((name[:-1].decode(), mode, content))


names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=9)


@given(st.dictionaries(names, st.binary(max_size=50)))
def test_archive_reads_back_as_it_was_written(files: dict[str, bytes]) -> None:
    entries = read_newc(newc_archive(files, folders=("bin",)))
    assert entries[0] == ("bin", 0o040755, b"")
    assert [(name, content) for name, _, content in entries[1:]] == list(files.items())
    assert {mode for _, mode, _ in entries[1:]} <= {0o100755}
