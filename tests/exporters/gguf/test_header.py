from __future__ import annotations

from pathlib import Path
from typing import Final

import gguf
import numpy as np

from edgeship.exporters.gguf.blueprint import (
    Metadata,
    MetadataValue,
    TensorPlan,
    ValueType,
    array,
    boolean,
    float32,
    text,
    uint32,
)
from edgeship.exporters.gguf.header import encode_header
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.layout import Layout, lay_out

METADATA: Final[Metadata] = (
    ("general.architecture", text("llama")),
    ("general.name", text("Größe 模型")),
    ("llama.block_count", uint32(2)),
    ("llama.epsilon", float32(1e-5)),
    ("tokenizer.add_bos", boolean(True)),
    ("tokenizer.add_eos", boolean(False)),
    ("tokenizer.tokens", array(ValueType.STRING, (b"\xff\x00", b"", "é"))),
    ("tokenizer.scores", array(ValueType.FLOAT32, (0.0, -1000.5, 0.1))),
    ("tokenizer.types", array(ValueType.INT32, (1, -2, 3))),
    ("flags", array(ValueType.BOOL, (True, False))),
    ("some.int64", MetadataValue(type=ValueType.INT64, value=-(1 << 40))),
    ("some.float64", MetadataValue(type=ValueType.FLOAT64, value=0.1)),
    ("some.uint8", MetadataValue(type=ValueType.UINT8, value=200)),
    ("some.int16", MetadataValue(type=ValueType.INT16, value=-300)),
)
PLANS: Final = (
    ("output_norm.weight", (512,), Kind.F32),
    ("blk.0.attn_q.weight", (3, 512), Kind.Q4_K),
    ("blk.0.ffn_up.weight", (7, 512), Kind.Q6_K),
    ("blk.1.ffn_up.weight", (2, 512), Kind.F16),
)


def small_layout() -> Layout:
    plans = [TensorPlan(name=name, shape=shape, source="") for name, shape, _ in PLANS]
    return lay_out(plans, {name: kind for name, _, kind in PLANS})


def test_bytes_are_those_that_ggufs_own_writer_gives(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    for key, value in METADATA[1:]:
        kind = gguf.GGUFValueType(value.type)
        content = list(value.value) if isinstance(value.value, tuple) else value.value
        item = None if value.item is None else gguf.GGUFValueType(value.item)
        writer.add_key_value(key, content, kind, item)
    layout = small_layout()
    for placement in layout.placements:
        stored_as = gguf.GGMLQuantizationType[placement.kind]
        shape = (placement.rows, placement.row_bytes)
        raw = np.zeros(shape[len(placement.plan.shape) == 1 :], np.uint8)
        writer.add_tensor(placement.plan.name, raw, raw_dtype=stored_as)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = encode_header(METADATA, layout)
    theirs = (tmp_path / "theirs.gguf").read_bytes()
    assert theirs == header + bytes(layout.data_bytes)


def test_a_matrix_of_one_row_has_one_axis_in_the_file(tmp_path: Path) -> None:
    plan = TensorPlan(name="score.weight", shape=(1, 64), source="")
    layout = lay_out([plan], {plan.name: Kind.F32})
    path = tmp_path / "one.gguf"
    path.write_bytes(encode_header(METADATA[:1], layout) + bytes(layout.data_bytes))
    tensor = gguf.GGUFReader(path).tensors[0]
    assert list(tensor.shape) == [64]
