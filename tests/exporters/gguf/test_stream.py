from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeship.errors import ConfigurationError, EdgeshipError, ExportFailed
from edgeship.exporters.gguf.blueprint import Metadata, TensorPlan, text, uint32
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.library import Ggml
from edgeship.exporters.gguf.stream import Contents, write_gguf
from edgeship.source.stored_checkpoint import open_checkpoint
from edgeship.source.tensor_source import TensorSource

checkpoints = SimpleNamespace(**run_path(str(Path(__file__).with_name("checkpoints.py"))))

METADATA: Final[Metadata] = (
    ("general.architecture", text("llama")),
    ("general.file_type", uint32(15)),
)
HEADS: Final = 4
SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    "table": (2700, 256),  # three blocks
    "queries": (2048, 256),  # two blocks of two heads
    "keys": (256, 256),
    "bias": (256,),
    "norm": (256,),
}
KINDS: Final = {
    "token_embd.weight": Kind.Q6_K,
    "blk.0.attn_q.weight": Kind.Q4_K,
    "blk.0.attn_k.weight": Kind.Q4_0,
    "blk.0.attn_k.bias": Kind.F32,
    "blk.0.attn_norm.weight": Kind.F32,
    "rope_freqs.weight": Kind.F32,
}
PLANS: Final = (
    TensorPlan(name="token_embd.weight", shape=(2700, 256), source="table"),
    TensorPlan(
        name="blk.0.attn_q.weight", shape=(2048, 256), source="queries", permuted_heads=HEADS
    ),
    TensorPlan(name="blk.0.attn_k.weight", shape=(256, 256), source="keys"),
    TensorPlan(name="blk.0.attn_k.bias", shape=(256,), source="bias"),
    TensorPlan(name="blk.0.attn_norm.weight", shape=(256,), source="norm"),
    TensorPlan(name="rope_freqs.weight", shape=(3,), source="", values=(1.0, 2.5, 8.0)),
)
Floats = NDArray[np.float32]


def weights(element: str) -> dict[str, Floats]:
    """Numbers that the element type holds exactly."""
    generator = np.random.default_rng(3)
    values = {name: generator.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    if element == "F16":
        return {name: value.astype(np.float16).astype(np.float32) for name, value in values.items()}
    if element == "BF16":
        cut = {name: value.view("<u4") & np.uint32(0xFFFF0000) for name, value in values.items()}
        return {name: value.view("<f4") for name, value in cut.items()}
    return values


def write_checkpoint(directory: Path, values: Mapping[str, Floats], element: str = "BF16") -> Path:
    directory.mkdir(exist_ok=True)
    tensors = [(name, checkpoints.stored(value, element)) for name, value in values.items()]
    checkpoints.write_shards(directory, tensors, 2)
    return directory


@contextmanager
def opened(
    directory: Path, kinds: Mapping[str, Kind] | None = None
) -> Iterator[tuple[TensorSource, Contents]]:
    contents = Contents(metadata=METADATA, tensors=PLANS, kinds={**KINDS, **(kinds or {})})
    with open_checkpoint(directory) as checkpoint:
        yield checkpoint.source, contents


def tensors_of(path: Path) -> dict[str, tuple[str, bytes]]:
    reader = gguf.GGUFReader(path)
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in reader.tensors}


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def rope_order(values: Floats, heads: int) -> Floats:
    """Source: conversion/llama.py of llama.cpp, `LlamaModel.permute`."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def quantized(kind: Kind, values: Floats, importance: Floats | None = None) -> bytes:
    """A whole tensor in one call."""
    rows = values.reshape(-1, values.shape[-1])
    out = np.empty(len(rows) * kind.row_bytes(rows.shape[1]), np.uint8)
    Ggml().quantize(kind, rows, importance, out=out)
    return out.tobytes()


@pytest.mark.parametrize("element", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_tensor_is_what_one_call_over_all_of_it_gives(
    tmp_path: Path, element: str, threads: int
) -> None:
    values = weights(element)
    path = tmp_path / "out" / "model.gguf"
    with opened(write_checkpoint(tmp_path / "hf", values, element)) as (source, contents):
        size = write_gguf(source, contents, path, threads=threads)
    assert size == path.stat().st_size
    written = tensors_of(path)
    assert list(written) == [  # the order of the file
        "rope_freqs.weight",
        "token_embd.weight",
        "blk.0.attn_k.bias",
        "blk.0.attn_k.weight",
        "blk.0.attn_norm.weight",
        "blk.0.attn_q.weight",
    ]
    expected = {
        "token_embd.weight": values["table"],
        "blk.0.attn_q.weight": rope_order(values["queries"], HEADS),
        "blk.0.attn_k.weight": values["keys"],
        "blk.0.attn_k.bias": values["bias"],
        "blk.0.attn_norm.weight": values["norm"],
        "rope_freqs.weight": np.array([1, 2.5, 8], np.float32),
    }
    for name, value in expected.items():
        assert written[name] == (KINDS[name], quantized(KINDS[name], value)), name
    assert path.stat().st_mode & 0o777 == 0o644
    assert names_in(path.parent) == ["model.gguf"]


def test_heads_of_vectors_are_reordered_too(tmp_path: Path) -> None:
    values = weights("F32")
    plan = TensorPlan(name="blk.0.attn_q.bias", shape=(256,), source="bias", permuted_heads=HEADS)
    contents = Contents(metadata=METADATA, tensors=(plan,), kinds={plan.name: Kind.F32})
    with open_checkpoint(write_checkpoint(tmp_path / "hf", values, "F32")) as checkpoint:
        write_gguf(checkpoint.source, contents, tmp_path / "a.gguf", threads=1)
    expected = rope_order(values["bias"], HEADS).tobytes()
    assert tensors_of(tmp_path / "a.gguf")[plan.name] == ("F32", expected)


def test_importance_reaches_the_tensor_that_it_is_of(tmp_path: Path) -> None:
    values = weights("F32")
    importance = np.random.default_rng(1).exponential(1.0, 256).astype(np.float32)
    path = tmp_path / "model.gguf"
    named = {"blk.0.attn_k.weight": importance, "blk.7.attn_k.weight": importance[:3]}
    with opened(write_checkpoint(tmp_path / "hf", values, "F32")) as (source, contents):
        write_gguf(source, contents, path, threads=2, importance=named)
    written = tensors_of(path)
    keys = written["blk.0.attn_k.weight"][1]
    assert keys == quantized(Kind.Q4_0, values["keys"], importance)
    assert keys != quantized(Kind.Q4_0, values["keys"])
    assert written["token_embd.weight"][1] == quantized(Kind.Q6_K, values["table"])


@pytest.mark.parametrize(
    ("importance", "found"),
    [(np.ones(255, np.float32), "found 255"), (np.full(256, np.inf, np.float32), "not finite")],
)
def test_importance_of_another_model_is_refused(
    tmp_path: Path, importance: Floats, found: str
) -> None:
    named = {"blk.0.attn_k.weight": importance}
    with opened(write_checkpoint(tmp_path / "hf", weights("F32"))) as (source, contents):
        text = refused(
            tmp_path,
            ConfigurationError,
            lambda path: write_gguf(source, contents, path, threads=1, importance=named),
        )
    assert "blk.0.attn_k.weight" in text
    assert found in text


def refused(directory: Path, kind: type[BaseException], write: Callable[[Path], object]) -> str:
    """What is said; the last good file is as it was, and nothing lies beside it."""
    place = directory / "build"
    place.mkdir(exist_ok=True)
    path = place / "model.gguf"
    path.write_bytes(b"the last good one")
    with pytest.raises(kind) as caught:
        write(path)
    assert path.read_bytes() == b"the last good one"
    assert names_in(place) == ["model.gguf"]
    if isinstance(caught.value, EdgeshipError):
        assert all(problem.remedy for problem in caught.value.problems)
    return str(caught.value)


@pytest.mark.parametrize("element", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(
    ("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
def test_a_weight_that_is_no_number_is_named_by_tensor_and_row(
    tmp_path: Path, element: str, value: float, name: str
) -> None:
    values = weights(element)
    values["table"][2600, 17] = value
    with opened(write_checkpoint(tmp_path / "hf", values, element)) as (source, contents):
        text = refused(
            tmp_path, ExportFailed, lambda path: write_gguf(source, contents, path, threads=2)
        )
    assert "table, row 2600: a weight is no finite number" in text
    assert f"{name} in column 17" in text


@pytest.mark.parametrize(
    ("kind", "largest", "is_refused"),
    [
        (Kind.F16, 70_000.0, True),
        (Kind.BF16, 1e30, False),
        (Kind.F32, 1e30, False),
        (Kind.Q4_0, 70_000.0, False),  # its scale is an eighth of it
        (Kind.Q4_0, -600_000.0, True),
        (Kind.Q4_K, 1e9, True),
    ],
)
def test_a_weight_that_its_kind_cannot_hold_is_refused(
    tmp_path: Path, kind: Kind, largest: float, is_refused: bool
) -> None:
    values = weights("F32")
    values["keys"][9, 3] = largest
    directory = write_checkpoint(tmp_path / "hf", values, "F32")
    with opened(directory, {"blk.0.attn_k.weight": kind}) as (source, contents):

        def write(path: Path) -> None:
            write_gguf(source, contents, path, threads=1)

        if is_refused:
            text = refused(tmp_path, ExportFailed, write)
            assert f"keys, rows 0 to 255: a weight is too large for {kind}" in text
        else:
            write(tmp_path / "model.gguf")


def test_a_truncated_shard_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "hf", weights("BF16"))
    shard = directory / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)

    def write(path: Path) -> None:
        with opened(directory) as (source, contents):
            write_gguf(source, contents, path, threads=1)

    text = refused(tmp_path, ConfigurationError, write)
    assert f"{shard}: the file is cut short" in text


def test_an_index_that_names_absent_shards_and_tensors_is_refused(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "hf", weights("BF16"))
    index = directory / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first = content["weight_map"]["table"]
    content["weight_map"]["phantom"] = first
    index.write_text(json.dumps(content))

    def write(path: Path) -> None:
        with opened(directory) as (source, contents):
            write_gguf(source, contents, path, threads=1)

    assert "phantom: a tensor of the index is not in its shard" in refused(
        tmp_path, ConfigurationError, write
    )
    (directory / first).unlink()
    assert f"{first}: a shard is missing" in refused(tmp_path, ConfigurationError, write)


def test_a_shard_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "hf", weights("BF16"))
    with opened(directory) as (source, contents):
        os.truncate(directory / "model-00001-of-00002.safetensors", 4096)
        text = refused(
            tmp_path, ConfigurationError, lambda path: write_gguf(source, contents, path, threads=2)
        )
    assert "the file was shortened while" in text


def test_a_full_disk_is_told_before_any_work(tmp_path: Path) -> None:
    rows = 1 << 31  # 4 TB of holes, which become 8 TB
    plan = TensorPlan(name="token_embd.weight", shape=(rows, 1024), source="table")
    header = {"table": {"dtype": "BF16", "shape": plan.shape, "data_offsets": [0, rows * 2048]}}
    raw = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    os.truncate(path, 8 + len(raw) + rows * 2048)
    contents = Contents(metadata=METADATA, tensors=(plan,), kinds={plan.name: Kind.F32})
    with open_checkpoint(path) as checkpoint:
        text = refused(
            tmp_path,
            ExportFailed,
            lambda path: write_gguf(checkpoint.source, contents, path, threads=1),
        )
    assert "the disk is full: expected 8,796,093.0 MB free" in text


def test_progress_grows_up_to_all_weights(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with opened(write_checkpoint(tmp_path / "hf", weights("BF16"))) as (source, contents):
        write_gguf(
            source,
            contents,
            tmp_path / "model.gguf",
            threads=2,
            on_progress=lambda done, count: told.append((done, count)),
        )
    total = sum(plan.elements for plan in PLANS)
    assert told == sorted(told)
    assert {count for _, count in told} == {total}
    assert told[-1] == (total, total)


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_done: int, _all: int) -> None:
        raise KeyboardInterrupt

    with opened(write_checkpoint(tmp_path / "hf", weights("BF16"))) as (source, contents):
        refused(
            tmp_path,
            KeyboardInterrupt,
            lambda path: write_gguf(source, contents, path, threads=2, on_progress=interrupt),
        )
