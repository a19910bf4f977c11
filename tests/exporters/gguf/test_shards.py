from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeship.errors import ConfigurationError
from edgeship.exporters.gguf.blueprint import TensorPlan
from edgeship.exporters.gguf.shards import check_tensors, read_rows
from edgeship.source.element import ElementType
from edgeship.source.safetensors_file import open_safetensors
from edgeship.source.tensor_source import TensorEntry

checkpoints = SimpleNamespace(**run_path(str(Path(__file__).with_name("checkpoints.py"))))


def entry(name: str, element: ElementType, *shape: int) -> TensorEntry:
    return TensorEntry(name=name, element=element, shape=shape)


def plan(source: str, *shape: int) -> TensorPlan:
    return TensorPlan(name=f"blk.0.{source}", shape=shape, source=source)


def test_what_the_checkpoint_lacks_is_told_tensor_by_tensor() -> None:
    entries = {
        "good": entry("good", ElementType.F16, 4, 32),
        "wide": entry("wide", ElementType.BF16, 4, 64),
        "packed": entry("packed", ElementType.I8, 4, 32),
        "unused": entry("unused", ElementType.I64, 1),
    }
    made = TensorPlan(name="rope_freqs.weight", shape=(1,), source="", values=(1.0,))
    plans = [made, *(plan(name, 4, 32) for name in ("good", "gone", "wide", "packed"))]
    with pytest.raises(ConfigurationError) as caught:
        check_tensors(entries, plans)
    absent, shape, element = map(str, caught.value.problems)
    assert "gone: the checkpoint has no such tensor: expected the weights of blk.0.gone" in absent
    assert "wide: the tensor has another shape" in shape
    assert "expected [4, 32], found [4, 64]" in shape
    assert "packed: weights of this element type cannot be quantized" in element
    assert "found I8" in element


def test_a_checkpoint_that_lacks_all_is_no_page_of_problems() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_tensors({}, [plan(f"w{number}", 4) for number in range(40)])
    assert len(caught.value.problems) == 6
    assert "35 more" in str(caught.value)


def test_rows_are_read_where_they_lie(tmp_path: Path) -> None:
    first = np.arange(10, dtype="<u2").reshape(2, 5)
    second = np.arange(100, 124, dtype="<u2").reshape(6, 4)
    path = tmp_path / "model.safetensors"
    checkpoints.write_safetensors(path, {"a": ("BF16", first), "b": ("BF16", second)})
    with open_safetensors(path) as source:
        np.testing.assert_array_equal(
            read_rows(source, plan("b", 6, 4), 2, 3), second[2:5].reshape(-1)
        )
