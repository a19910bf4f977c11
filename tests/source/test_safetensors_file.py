import json
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edgeship.errors import ConfigurationError, EdgeshipError, Problem
from edgeship.source import safetensors_header, tensor_source
from edgeship.source.element import ElementType
from edgeship.source.safetensors_file import open_safetensors
from edgeship.source.tensor_source import Span, TensorEntry, blocks, spans

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


def write(file: Path, header: object, buffer: bytes = b"", *, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + buffer)
    return file


def item(shape: object, offsets: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def refused(file: Path) -> Problem:
    """The one problem of opening it, which takes memory in the order of the file at most."""
    tracemalloc.start()
    try:
        with pytest.raises(ConfigurationError) as caught, open_safetensors(file):
            pass
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    (problem,) = caught.value.problems
    assert str(file) in problem.where
    assert problem.remedy
    return problem


def everything(file: Path) -> dict[str, np.ndarray]:
    with open_safetensors(file) as source:
        return {
            name: np.concatenate([*blocks(source, name), np.empty(0, np.bool_)])
            if not entry.elements
            else np.concatenate(list(blocks(source, name)))
            for name, entry in source.entries.items()
        }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (4, 5), (2, 3, 3, 3), (2, 0, 3)])
def test_reads_what_safetensors_wrote(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    file = tmp_path / "w.safetensors"
    generator = torch.Generator().manual_seed(0)
    tensor = (torch.randn(shape, generator=generator) * 9).to(dtype)
    save_file({"a": tensor, "b": torch.ones(3)}, file, metadata={"format": "pt", "ä": '}"{'})
    with open_safetensors(file) as source:
        assert source.entries["a"].shape == shape
    wide = tensor.float() if dtype.is_floating_point and dtype != torch.float64 else tensor
    np.testing.assert_array_equal(everything(file)["a"], wide.reshape(-1).numpy())


def test_blocks_keep_the_limit_and_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_source, "BLOCK_BYTES", 64)
    file = tmp_path / "w.safetensors"
    values = torch.arange(7 * 6, dtype=torch.float32).reshape(7, 6)
    save_file({"a": values}, file)
    with open_safetensors(file) as source:
        found = list(blocks(source, "a"))
    assert [block.size for block in found] == [12, 12, 12, 6]
    np.testing.assert_array_equal(np.concatenate(found), values.reshape(-1).numpy())


@given(
    shape=st.lists(st.integers(1, 9), max_size=4).map(tuple),
    limit=st.integers(4, 200),
)
def test_spans_cover_every_element_once_in_order(shape: tuple[int, ...], limit: int) -> None:
    entry = TensorEntry(name="a", element=ElementType.F32, shape=shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_source, "BLOCK_BYTES", limit)
        cut = list(spans(entry))
    assert all(0 < 4 * span.count <= limit for span in cut)
    covered = [index for span in cut for index in range(span.start, span.start + span.count)]
    assert covered == list(range(entry.elements))


def test_a_run_in_the_middle_is_read_alone(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(5), "a": torch.arange(10, dtype=torch.int64)}, file)
    with open_safetensors(file) as source:
        assert source.read("a", Span(start=3, count=2)).tolist() == [3, 4]


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_file_without_a_length_is_told(tmp_path: Path, size: int) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"\0" * size)
    assert refused(file).found == f"{size} bytes"


@pytest.mark.parametrize("claim", [10 << 30, 100_000_001, (1 << 64) - 1, 3])
def test_a_length_beyond_the_file_allocates_nothing(tmp_path: Path, claim: int) -> None:
    file = write(tmp_path / "w.safetensors", b"{}", length=claim)
    problem = refused(file)
    assert "length of the header" in problem.what
    assert str(claim) in (problem.found or "")


def test_a_header_beyond_the_limit_is_refused_though_the_file_has_it(tmp_path: Path) -> None:
    file = write(tmp_path / "w.safetensors", b"{}", length=100_000_001)
    with file.open("r+b") as opened:
        opened.truncate(200_000_000)  # sparse
    assert "at most 100000000" in (refused(file).expected or "")


def test_a_big_endian_length_is_named(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack(">Q", 2) + b"{}")
    assert "big-endian it would be 2" in (refused(file).found or "")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" {}",
        b"[]",
        b"hello",
        b"{",
        b"{}x",
        b"{}\n",
        b'{"a"}',
        b'{"a":1}',
        b'{"a":null,}',
        b"{'a':{}}",
        b"\xff\xfe{}",
        b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        b'{"a\n":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}',
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]} "b":1}',
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"more":1}}',
        b'{"a":{"dtype":"U8","shape":[0]}}',
        b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        b'{"__metadata__":{"a":1}}',
        b'{"__metadata__":{"a":"1","a":"2"}}',
        b'{"__metadata__":{},"__metadata__":{}}',
        b'{"__metadata__":[]}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b'{"b":' * 20_000,
        b'{"a":{"dtype":' + b"[" * 3000 + b"}",
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_a_header_that_is_no_safetensors_json_is_refused(tmp_path: Path, raw: bytes) -> None:
    assert "header" in str(refused(write(tmp_path / "w.safetensors", raw)))


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"a": item([2], [0, 8], "F33")}, "type is not known"),
        ({"a": item([2], [0, 8], ["F32"])}, "type is not known"),
        ({"a": item([-2], [0, 8])}, "shape is impossible"),
        ({"a": item([2.0], [0, 8])}, "shape is impossible"),
        ({"a": item([True, 2], [0, 8])}, "shape is impossible"),
        ({"a": item("2", [0, 8])}, "shape is impossible"),
        ({"a": item([2], [8, 0])}, "offsets are impossible"),
        ({"a": item([2], [0])}, "offsets are impossible"),
        ({"a": item([2], [-8, 0])}, "offsets are impossible"),
        ({"a": item([3], [0, 8])}, "do not agree"),
        ({"a": item([1 << 62, 1 << 62], [0, 8])}, "do not agree"),
        ({"a": item([10**400, 10**400], [0, 8])}, "do not agree"),
        ({"a": item([2], [0, 8], "F64")}, "do not agree"),
        ({"a": item([2], [0, 8]), "b": item([2], [4, 12])}, "overlaps"),
        ({"a": item([2], [0, 8]), "b": item([2], [0, 8])}, "overlaps"),
        ({"a": item([1], [0, 4]), "b": item([1], [8, 12])}, "no tensor"),
        ({"a": item([1], [4, 8])}, "no tensor"),
        ({"a": item([1], [0, 4])}, "bytes follow"),
        ({"a": item([1 << 40], [0, 4 << 40])}, "cut short"),
    ],
)
def test_a_tensor_that_does_not_fit_its_file_is_refused(
    tmp_path: Path, header: Mapping[str, object], what: str
) -> None:
    problem = refused(write(tmp_path / "w.safetensors", header, b"\0" * 8))
    assert what in problem.what
    assert len(str(problem)) < 600


def test_a_name_that_appears_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(item([1], [0, 4]))
    raw = f'{{"a": {entry}, "a": {entry}}}'.encode()
    assert "twice" in refused(write(tmp_path / "w.safetensors", raw, b"\0" * 4)).what


def test_a_header_of_too_many_names_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_header, "NAME_LIMIT", 2)
    names = {"a": "", "b": "", "c": ""}
    tensors = dict.fromkeys(names, item([0], [0, 0]))
    for header in (tensors, {"__metadata__": names}):
        assert "too many names" in refused(write(tmp_path / "w.safetensors", header)).what


def test_names_that_would_move_the_cursor_are_escaped(tmp_path: Path) -> None:
    header = {"\x1b[2J" + "x" * 500: item([-1], [0, 4])}
    problem = refused(write(tmp_path / "w.safetensors", header, b"\0" * 4))
    assert "\x1b" not in str(problem)
    assert len(str(problem)) < 500


def test_absent_files_and_directories_are_told(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "a.safetensors").what
    (tmp_path / "d.safetensors").mkdir()
    assert "no file" in refused(tmp_path / "d.safetensors").what


def test_a_file_that_shrinks_meanwhile_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "w.safetensors", {"a": item([2], [0, 8])}, b"\0" * 8)
    with open_safetensors(file) as source:
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - 1)
        with pytest.raises(ConfigurationError, match="shortened while a"):
            list(blocks(source, "a"))


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "arbitrary.safetensors"
    raw = content[8:]
    for whole in (content, struct.pack("<Q", len(raw)) + raw):
        file.write_bytes(whole)
        try:
            everything(file)
        except EdgeshipError:
            continue


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("flips") / "w.safetensors"
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator).bfloat16(),
        "conv.bias": torch.randn(4, generator=generator),
        "steps": torch.tensor(7),
    }
    save_file(tensors, file, metadata={"format": "pt"})
    return file


@settings(max_examples=400, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 319), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 500),
)
def test_flipped_bytes_are_refused_or_read_as_safetensors_reads_them(
    whole: Path, flips: list[tuple[int, int]], cut: int | None
) -> None:
    content = bytearray(whole.read_bytes())[:cut]
    for place, byte in flips:
        if place < len(content):
            content[place] = byte
    file = whole.with_stem("flipped")
    file.write_bytes(content)
    try:
        found = everything(file)
    except EdgeshipError:
        return
    try:
        with safe_open(file, "pt") as theirs:
            expected = {name: theirs.get_tensor(name) for name in theirs.keys()}  # noqa: SIM118 - it is no mapping
    except SafetensorError as error:
        pytest.fail(f"read, though safetensors refuses it: {error}")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        is_small = tensor.is_floating_point() and tensor.dtype != torch.float64
        wide = tensor.float() if is_small else tensor
        np.testing.assert_array_equal(found[name], wide.reshape(-1).numpy())
