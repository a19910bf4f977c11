from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.exporters.tflite.contracts import file_contract
from edgeship.vocabulary import Layout

Tables = Any
Make = Callable[..., Tables]
PREPROCESS = Preprocess(size=(6, 4), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
IMAGE = TensorSpec(name="image", shape=(1, 3, 6, 4), layout=Layout.NCHW, preprocess=PREPROCESS)
IDS = TensorSpec(name="ids", shape=(1, 8), dtype="int64")
MAP = TensorSpec(name="map", shape=(1, 5, 3, 2))
LOGITS = TensorSpec(name="logits", shape=(1, 10), labels="labels.txt")


def tables_of(handmade: Make, *tensors: tuple[str, str, tuple[int, ...]]) -> Tables:
    """Only ends: the first two tensors go in, the others come out, the last one first."""
    from ai_edge_litert import schema_py_generated as schema

    names = [name for name, _, _ in tensors]
    tables = handmade(
        {name: (kind, shape) for name, kind, shape in tensors}, [], names[:2], names[2:]
    )
    signature = schema.SignatureDefT()
    signature.inputs, signature.outputs = [], []
    for index, name in reversed(list(enumerate(names))):
        item = schema.TensorMapT()
        item.name, item.tensorIndex = name.encode(), index
        (signature.inputs if index < 2 else signature.outputs).append(item)
    tables.signatureDefs = [signature]
    return tables


def test_images_are_channel_last_and_token_ids_narrow(handmade: Make) -> None:
    tables = tables_of(
        handmade,
        ("image", "FLOAT32", (1, 6, 4, 3)),
        ("ids", "INT32", (1, 8)),
        ("map", "FLOAT32", (1, 3, 2, 5)),
        ("logits", "FLOAT32", (1, 10)),
    )
    found = file_contract(Contract(inputs=(IMAGE, IDS), outputs=(MAP, LOGITS)), tables)
    assert found == Contract(
        inputs=(
            TensorSpec(name="image", shape=(1, 6, 4, 3), layout=Layout.NHWC, preprocess=PREPROCESS),
            TensorSpec(name="ids", shape=(1, 8), dtype="int32"),
        ),
        outputs=(TensorSpec(name="map", shape=(1, 3, 2, 5), layout=Layout.NHWC), LOGITS),
    )


def test_a_model_without_images_keeps_its_axes(handmade: Make) -> None:
    tables = tables_of(
        handmade,
        ("vector", "FLOAT32", (1, 4)),
        ("ids", "INT32", (1, 8)),
        ("map", "FLOAT32", (1, 5, 3, 2)),
    )
    vector = TensorSpec(name="vector", shape=(1, 4))
    found = file_contract(Contract(inputs=(vector, IDS), outputs=(MAP,)), tables)
    assert found.outputs == (MAP,)


def test_integer_ends_say_their_scale(handmade: Make) -> None:
    from ai_edge_litert import schema_py_generated as schema

    tables = tables_of(
        handmade,
        ("image", "INT8", (1, 6, 4, 3)),
        ("ids", "INT32", (1, 8)),
        ("logits", "INT8", (1, 10)),
    )
    for index, scale, zero_point in ((0, 0.0271, -3), (2, 0.5, 7)):
        quantization = schema.QuantizationParametersT()
        quantization.scale = np.array([scale], np.float32)
        quantization.zeroPoint = np.array([zero_point], np.int64)
        tables.subgraphs[0].tensors[index].quantization = quantization
    tables.subgraphs[0].tensors[1].quantization = schema.QuantizationParametersT()
    found = file_contract(Contract(inputs=(IMAGE, IDS), outputs=(LOGITS,)), tables)
    image, ids = found.inputs
    assert (image.dtype, image.scale, image.zero_point) == ("int8", float(np.float32(0.0271)), -3)
    assert (ids.dtype, ids.scale, ids.zero_point) == ("int32", None, None)
    (logits,) = found.outputs
    assert (logits.scale, logits.zero_point, logits.labels) == (0.5, 7, "labels.txt")


def test_the_file_s_contract_can_be_asked_for_again(handmade: Make) -> None:
    tables = tables_of(
        handmade,
        ("image", "FLOAT32", (1, 6, 4, 3)),
        ("ids", "INT32", (1, 8)),
        ("map", "FLOAT32", (1, 3, 2, 5)),
    )
    once = file_contract(Contract(inputs=(IMAGE, IDS), outputs=(MAP,)), tables)
    assert file_contract(once, tables) == once


@pytest.mark.parametrize("layout", [None, Layout.NHWC])
def test_other_inputs_of_rank_4_stay(handmade: Make, layout: Layout | None) -> None:
    tables = tables_of(
        handmade,
        ("image", "FLOAT32", (1, 3, 6, 4)),
        ("ids", "INT32", (1, 8)),
        ("map", "FLOAT32", (1, 5, 3, 2)),
    )
    raw = TensorSpec(name="image", shape=(1, 3, 6, 4), layout=layout)
    found = file_contract(Contract(inputs=(raw, IDS), outputs=(MAP,)), tables)
    assert found.inputs[0] == raw
    assert found.outputs == (MAP,)
