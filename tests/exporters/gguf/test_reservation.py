from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeship.errors import ExportFailed
from edgeship.exporters.gguf.reservation import reserved_file


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_space_is_there_before_the_first_byte_and_reads_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.gguf"
    with reserved_file(path, 100_000) as file:
        status = next(iter(path.parent.iterdir())).stat()
        assert status.st_size == 100_000
        assert status.st_blocks * 512 >= 100_000
        assert not path.exists()
        file.write(memoryview(b"end"), 99_997)
    assert path.read_bytes() == bytes(99_997) + b"end"


def test_an_error_inside_leaves_the_file_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"good")
    with pytest.raises(ZeroDivisionError), reserved_file(path, 10):
        raise ZeroDivisionError
    assert path.read_bytes() == b"good"
    assert names_in(tmp_path) == ["a.gguf"]


def test_what_the_system_refuses_is_an_error_with_its_words(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with (
        files_up_to(1000),
        pytest.raises(ExportFailed, match="cannot be written: found File too large"),
        reserved_file(path, 1001),
    ):
        pytest.fail("there is no room")
    assert names_in(tmp_path) == []


def test_a_write_that_the_system_refuses_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ExportFailed, match="cannot be written: found File too large"),
        reserved_file(tmp_path / "a.gguf", 5000) as file,
        files_up_to(1000),
    ):
        file.write(memoryview(bytes(10)), 2000)
    assert names_in(tmp_path) == []


def test_other_errors_inside_keep_their_own_words(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), reserved_file(tmp_path / "a.gguf", 10):
        raise BrokenPipeError
    assert names_in(tmp_path) == []


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ExportFailed, match="the file cannot be written"),
        reserved_file(tmp_path / "file" / "a.gguf", 10),
    ):
        pytest.fail("there is no directory")
