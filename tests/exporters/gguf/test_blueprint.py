from __future__ import annotations

import gguf
import pytest

from edgeship.exporters.gguf import blueprint
from edgeship.exporters.gguf.blueprint import TensorPlan, ValueType, closing_metadata


@pytest.mark.parametrize("kind", list(ValueType))
def test_numbers_of_the_types_are_those_of_gguf(kind: ValueType) -> None:
    assert gguf.GGUFValueType[kind.name].value == kind


def test_last_keys_are_those_that_llama_quantize_sets_again() -> None:
    keys = [(key, value.type, value.value) for key, value in closing_metadata(15)]
    assert keys == [
        (gguf.Keys.General.QUANTIZATION_VERSION, ValueType.UINT32, gguf.GGML_QUANT_VERSION),
        (gguf.Keys.General.FILE_TYPE, ValueType.UINT32, 15),
    ]


def test_row_of_a_vector_is_all_of_it() -> None:
    plan = TensorPlan(name="blk.0.attn_norm.weight", shape=(64,), source="norm")
    assert (plan.columns, plan.elements) == (64, 64)
    plan = TensorPlan(name="output.weight", shape=(96, 64), source="lm_head.weight")
    assert (plan.columns, plan.elements) == (64, 96 * 64)


def test_array_keeps_the_type_of_its_items() -> None:
    value = blueprint.array(ValueType.INT32, [1, 2])
    assert (value.type, value.item, value.value) == (ValueType.ARRAY, ValueType.INT32, (1, 2))
