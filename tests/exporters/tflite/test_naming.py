from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.tflite.flatbuffer import read_model, tensor_name, write_model
from edgeship.exporters.tflite.naming import module_of, modules_of, with_names
from edgeship.exporters.tflite.origins import Origin

Tables = Any
Make = Callable[..., Tables]
MAP = ("FLOAT32", (1, 4, 4, 2))


def place(*pairs: tuple[str, str]) -> str:
    return ";".join(str(Origin(module=module, operator=operator)) for module, operator in pairs)


def with_signature(tables: Tables, inputs: list[int], outputs: list[int]) -> Tables:
    """As the converter writes it: numbered, in any order."""
    from ai_edge_litert import schema_py_generated as schema

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.inputs, signature.outputs = b"serving_default", [], []
    graph = tables.subgraphs[0]
    for items, prefix, order, indices in (
        (signature.inputs, "args", inputs, graph.inputs),
        (signature.outputs, "output", outputs, graph.outputs),
    ):
        for number, index in zip(order, indices, strict=True):
            item = schema.TensorMapT()
            item.name, item.tensorIndex = f"{prefix}_{number}".encode(), index
            items.append(item)
    tables.signatureDefs = [signature]
    return tables


def contract(inputs: list[str], outputs: list[str]) -> Contract:
    return Contract(
        inputs=tuple(TensorSpec(name=name, shape=(1, 4, 4, 2)) for name in inputs),
        outputs=tuple(TensorSpec(name=name, shape=(1, 4, 4, 2)) for name in outputs),
    )


def block(handmade: Make) -> Tables:
    """relu(bn(conv(x)) + x), conv again, then a change of layout that the converter made."""
    conv = (("b.bn", "add"), ("other", "relu"), ("b.conv", "convolution"))
    converter_names = {
        "x": "serving_default_args_0",
        "bias": "arith.constant4",
        "weight": place(("b.bn", "mul"), ("b.conv", "convolution")),
        "first": f"{place(*conv)}1",
        "sum": place(("b.act", "relu"), ("b", "add")),
        "second": f"{place(*conv)}2",
        "order": "tfl.pseudo_const",
        "turned": "tfl.transpose",
        "y": place(("head", "clone"), ("head.c", "add"), ("head.c", "convolution")),
        "nothing": "arith.constant9",
    }
    tables = handmade(
        {
            "x": MAP,
            "bias": np.zeros(2, np.float32),
            "weight": np.zeros((2, 1, 1, 2), np.float32),
            "first": MAP,
            "sum": MAP,
            "second": MAP,
            "order": np.zeros(4, np.int32),
            "turned": MAP,
            "y": MAP,
            "nothing": np.zeros(1, np.int32),
        },
        [
            ("CONV_2D", ("x", "weight", "bias"), "first", {}),
            ("ADD", ("first", "x"), "sum", {}),
            ("CONV_2D", ("sum", "weight", "bias"), "second", {}),
            ("TRANSPOSE", ("second", "order"), "turned", {}),
            ("CONV_2D", ("turned", "weight", "bias"), "y", {}),
        ],
        ["x"],
        ["y"],
    )
    for tensor in tables.subgraphs[0].tensors:
        tensor.name = converter_names[tensor.name.decode()].encode()
    return with_signature(tables, [0], [0])


def names_of(tables: Tables) -> list[str]:
    return [tensor_name(tensor) for tensor in tables.subgraphs[0].tensors]


def test_tensors_are_named_by_module_and_operator(handmade: Make) -> None:
    tables = with_names(block(handmade), contract(["image"], ["logits"]))
    assert names_of(tables) == [
        "image",
        "b.conv/bias",
        "b.conv/weight",
        "b.conv/conv_2d",
        "b/add",
        "b.conv/conv_2d;1",
        "head.c/constant",
        "head.c/transpose",
        "logits",
        "/unused",
    ]


def test_names_and_signature_survive_the_file(handmade: Make) -> None:
    tables = with_names(block(handmade), contract(["image"], ["logits"]))
    stored = read_model(write_model(tables))
    assert names_of(stored) == names_of(tables)
    assert modules_of(stored) == {
        "b.conv/conv_2d": "b.conv",
        "b/add": "b",
        "b.conv/conv_2d;1": "b.conv",
        "head.c/transpose": "head.c",
        "logits": "head.c",  # its name has no room for it
    }
    (signature,) = stored.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [(item.name, item.tensorIndex) for item in signature.inputs] == [(b"image", 0)]
    assert [(item.name, item.tensorIndex) for item in signature.outputs] == [(b"logits", 8)]


def test_the_signature_follows_the_numbers_not_the_order_of_the_file(handmade: Make) -> None:
    inputs = [f"in{number}" for number in range(11)]
    tables = handmade(
        dict.fromkeys([*inputs, "sum", "difference"], MAP),
        [
            ("ADD", ("in0", "in1"), "sum", {}),
            ("SUB", ("in0", "in1"), "difference", {}),
        ],
        inputs,
        ["difference", "sum"],
    )
    numbers = [10, *range(10)]
    wanted = contract([f"i{number}" for number in range(11)], ["plus", "minus"])
    named = with_names(with_signature(tables, numbers, [1, 0]), wanted)
    (signature,) = named.signatureDefs
    assert [item.name.decode() for item in signature.inputs] == [
        spec.name for spec in wanted.inputs
    ]
    assert [item.tensorIndex for item in signature.inputs] == [*range(1, 11), 0]
    assert names_of(named) == ["i10", *(f"i{number}" for number in range(10)), "plus", "minus"]


def test_no_two_tensors_have_one_name(handmade: Make) -> None:
    tables = handmade(
        {"a": MAP, "b": MAP, "c": MAP, "d": MAP},
        [("RELU", ("a",), "b", {}), ("RELU", ("b",), "c", {}), ("RELU", ("c",), "d", {})],
        ["a"],
        ["d"],
    )
    named = with_names(with_signature(tables, [0], [0]), contract(["x"], ["x"]))
    assert names_of(named) == ["x", "/relu", "/relu;1", "x;1"]
    assert named.signatureDefs[0].outputs[0].name == b"x"


def test_an_optional_input_that_is_left_out_has_no_name(handmade: Make) -> None:
    tables = handmade(
        {"a": MAP, "w": np.zeros((2, 2), np.float32), "b": MAP},
        [("FULLY_CONNECTED", ("a", "w"), "b", {})],
        ["a"],
        ["b"],
    )
    tables.subgraphs[0].operators[0].inputs.append(-1)
    tables.subgraphs[0].tensors[1].name = place(("fc", "permute"), ("fc", "addmm")).encode()
    named = with_names(with_signature(tables, [0], [0]), contract(["x"], ["y"]))
    assert names_of(named) == ["x", "fc/weight", "y"]
    assert modules_of(named) == {"y": "fc"}


@pytest.mark.parametrize(
    ("operator", "pairs", "module"),
    [
        ("ADD", [("b.act", "relu"), ("b", "add"), ("b.bn", "add")], "b"),
        ("MUL", [("se", "mul"), ("se.hs", "div"), ("se.fc", "add")], "se"),
        ("MUL", [("se.hs", "div"), ("se.hs", "clamp"), ("se.fc", "add")], "se.hs"),
        ("CONV_2D", [("norm", "mul"), ("", "relu"), ("stem", "convolution")], "stem"),
        ("BATCH_MATMUL", [("a", "view"), ("a.attention", "bmm"), ("a", "mul")], "a.attention"),
        ("LOGISTIC", [("gate", "sigmoid"), ("fc", "add")], "gate"),
        ("MEAN", [("x", "view"), ("pool", "mean")], "pool"),
        ("PAD", [("conv", "convolution")], "conv"),
        ("RELU", [("act", "relu")], "act"),
        ("RESHAPE", [("act", "relu"), ("fc", "view"), ("head", "view")], "fc"),
    ],
)
def test_an_operator_is_of_the_module_that_a_person_would_name(
    handmade: Make, operator: str, pairs: list[tuple[str, str]], module: str
) -> None:
    tables = handmade(
        {"a": MAP, "b": MAP, "c": MAP},
        [(operator, ("a", "a"), "b", {}), ("ABS", ("b",), "c", {})],
        ["a"],
        ["c"],
    )
    tables.subgraphs[0].tensors[1].name = place(*pairs).encode()
    named = with_names(with_signature(tables, [0], [0]), contract(["x"], ["y"]))
    assert names_of(named)[1] == f"{module}/{operator.lower()}"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("layer1.0.conv1/conv_2d", "layer1.0.conv1"),
        ("/add;1", ""),
        ("logits", ""),
        ("odd/module/add", "odd/module"),
    ],
)
def test_the_module_stands_before_the_last_slash(name: str, module: str) -> None:
    assert module_of(name) == module
