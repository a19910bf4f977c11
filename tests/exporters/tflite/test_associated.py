from __future__ import annotations

import io
import struct
import zipfile
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeship.exporters.tflite.associated import label_problems, labels_file, with_files

CONTENT: Final = bytes(range(256)) * 5
END_OF_DIRECTORY: Final = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, 46, 0, 0)

# what lines of a file can be: no line break of any reader, and not blank
Label = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(
    lambda text: bool(text.strip(" "))
)


def archive(packed: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(packed))


def test_the_file_is_the_content_with_a_zip_behind_it() -> None:
    packed = with_files(CONTENT, {"labels.txt": b"a\nb\n", "README": b"text"})

    assert packed.startswith(CONTENT)
    assert archive(packed).testzip() is None
    assert archive(packed).namelist() == ["README", "labels.txt"]
    assert archive(packed).read("labels.txt") == b"a\nb\n"


def test_entries_are_stored_and_dateless_and_their_offsets_count_from_the_start() -> None:
    packed = with_files(CONTENT, {"labels.txt": b"a\n"})

    (entry,) = archive(packed).infolist()
    assert entry.compress_type == zipfile.ZIP_STORED
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert (entry.create_system, entry.external_attr >> 16) == (3, 0o644)
    directory = packed.index(b"PK\x01\x02")
    (offset,) = struct.unpack_from("<I", packed, directory + 42)  # APPNOTE.TXT 4.3.12
    assert offset == len(CONTENT)
    assert packed[offset : offset + 4] == b"PK\x03\x04"


def test_the_order_of_the_files_does_not_show_in_the_bytes() -> None:
    files = {"b": b"1", "a": b"2", "ü": b"3"}
    assert with_files(CONTENT, files) == with_files(CONTENT, dict(reversed(files.items())))


def test_without_files_nothing_is_appended() -> None:
    assert with_files(CONTENT, {}) == CONTENT


def test_weights_that_look_like_a_zip_are_left_alone() -> None:
    content = CONTENT + END_OF_DIRECTORY + bytes(40)
    packed = with_files(content, {"labels.txt": b"a\n"})

    assert packed.startswith(content)
    assert archive(packed).read("labels.txt") == b"a\n"


@given(st.lists(Label, min_size=1, max_size=40))
def test_both_of_androids_readers_see_the_labels(labels: list[str]) -> None:
    assert not list(label_problems(labels, len(labels), "labels.txt"))
    text = labels_file(labels).decode()

    natively = text.split("\n")[:-1]  # label_map_item.cc: an empty last piece is dropped
    blanks = "".join(map(chr, range(33)))  # what String.trim() takes off
    in_java = [line for line in io.StringIO(text, newline=None) if line.strip(blanks)]
    assert natively == labels
    assert [line.removesuffix("\n") for line in in_java] == labels


def test_a_thousand_labels_in_other_scripts_are_no_problem() -> None:
    labels = [f"类别 {index}, Größe" for index in range(1000)]
    assert not list(label_problems(labels, 1000, "labels.txt"))


@pytest.mark.parametrize("label", ["", " ", "\t ", "\x1f"])
def test_a_blank_label_would_shift_all_later_ones(label: str) -> None:
    (problem,) = label_problems(["cat", label, "dog"], 3, "labels.txt")
    assert problem.where == "labels.txt:2"
    assert "Android" in problem.what


@pytest.mark.parametrize("label", ["a\nb", "a\r", "\ra"])
def test_a_label_of_two_lines_is_a_problem(label: str) -> None:
    (problem,) = label_problems([label], 1, "labels.txt")
    assert "line break" in problem.what


def test_a_missing_label_is_a_problem() -> None:
    (problem,) = label_problems(["cat"], 2, "labels.txt")
    assert (problem.expected, problem.found) == ("2 lines, one for each score", "1 lines")
