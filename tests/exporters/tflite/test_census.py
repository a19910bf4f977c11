from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pytest

from edgeship.calibration.ranges import Range, Ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.errors import ExitCode, ExportFailed
from edgeship.exporters.tflite.census import Census, Place, require_integer, take_census
from edgeship.exporters.tflite.flatbuffer import ModelT, read_model, write_model
from edgeship.exporters.tflite.replacements import replacement_of

Make = Callable[..., ModelT]
ROW: Final = (1, 4)


def around_exp(handmade: Make, ends: str = "INT8") -> ModelT:
    """What ai-edge-quantizer makes of an operator between two others that it cannot quantize."""
    tables = handmade(
        {
            "image": (ends, ROW),
            "stem/relu": ("INT8", ROW),
            "stem/relu_dequant": ("FLOAT32", ROW),
            "act.exp/exp": ("FLOAT32", ROW),
            "act.exp/exp_quantized": ("INT8", ROW),
            "logits": (ends, ROW),
            "unused": ("FLOAT32", ROW),
        },
        [
            ("RELU", ("image",), "stem/relu", {}),
            ("DEQUANTIZE", ("stem/relu",), "stem/relu_dequant", {}),
            ("EXP", ("stem/relu_dequant",), "act.exp/exp", {}),
            ("QUANTIZE", ("act.exp/exp",), "act.exp/exp_quantized", {}),
            ("QUANTIZE", ("act.exp/exp_quantized",), "logits", {}),
        ],
        ["image"],
        ["logits"],
    )
    return read_model(write_model(tables))


def test_an_operator_in_float_is_named_with_its_module(handmade: Make) -> None:
    census = take_census(around_exp(handmade))
    assert census.in_float == (Place(operator="EXP", module="act.exp", tensor="act.exp/exp"),)
    assert [place.operator for place in census.conversions] == ["DEQUANTIZE", "QUANTIZE"]
    assert [place.tensor for place in census.requantizations] == ["logits"]
    assert census.operators == {"DEQUANTIZE": 1, "EXP": 1, "QUANTIZE": 2, "RELU": 1}
    assert (census.inputs, census.outputs) == ({"image": "INT8"}, {"logits": "INT8"})
    assert not census.is_integer


def test_tensors_that_nothing_uses_do_not_count(handmade: Make) -> None:
    census = take_census(around_exp(handmade))
    assert set(census.float_tensors) == {"stem/relu_dequant", "act.exp/exp"}


def test_every_subgraph_counts(handmade: Make) -> None:
    tables = handmade(
        {"x": ("INT8", ROW), "y": ("INT8", ROW)}, [("RELU", ("x",), "y", {})], ["x"], ["y"]
    )
    assert take_census(tables).is_integer
    other = around_exp(handmade)
    for operator in other.subgraphs[0].operators:
        operator.opcodeIndex += len(tables.operatorCodes)
    tables.operatorCodes += other.operatorCodes
    tables.subgraphs += other.subgraphs
    assert [place.module for place in take_census(tables).in_float] == ["act.exp"]


def test_wide_integers_are_named_apart(handmade: Make) -> None:
    tables = handmade(
        {
            "x": ("INT16", (1, 4)),
            "head/weight": np.ones((3, 4), np.int8),
            "head/bias": np.ones(3, np.int64),
            "logits": ("INT16", (1, 3)),
        },
        [("FULLY_CONNECTED", ("x", "head/weight", "head/bias"), "logits", {})],
        ["x"],
        ["logits"],
    )
    census = take_census(tables)
    assert census.is_integer
    assert census.int64_biases == ("head/bias",)
    assert census.int16_activations == ("x", "logits")


def test_integer_weights_do_not_make_an_operator_integer(handmade: Make) -> None:
    tables = handmade(
        {
            "x": ("FLOAT32", (1, 4)),
            "head/weight": np.ones((3, 4), np.int8),
            "head/linear": ("FLOAT32", (1, 3)),
        },
        [("FULLY_CONNECTED", ("x", "head/weight"), "head/linear", {})],
        ["x"],
        ["head/linear"],
    )
    census = take_census(tables)
    assert census.hybrid == census.in_float
    assert [str(place) for place in census.hybrid] == ["FULLY_CONNECTED in head"]
    with pytest.raises(ExportFailed, match="module head: FULLY_CONNECTED"):
        require_integer(census)


def test_what_stays_in_float_fails_the_export(handmade: Make) -> None:
    with pytest.raises(ExportFailed) as caught:
        require_integer(take_census(around_exp(handmade)))
    assert caught.value.exit_code == ExitCode.EXPORT_FAILED
    (problem,) = caught.value.problems
    assert str(problem) == (
        "tflite int8: module act.exp: EXP has no int8 kernel here, and computes in float32:"
        " expected a fully integer file, found 1 EXP in float32; use softmax, sigmoid or tanh, or"
        " retrain with an activation like SiLU or GELU; or choose a precision that is not fully"
        ' integer: "dynamic", or a rule with precision = "fp32" and match = "act.exp"'
    )


def test_what_was_kept_in_float_is_allowed(handmade: Make) -> None:
    require_integer(take_census(around_exp(handmade)), kept=["act.exp/exp"])


def test_an_end_in_float_fails_the_export(handmade: Make) -> None:
    tables = handmade(
        {"x": ("FLOAT32", ROW), "y": ("INT8", ROW)}, [("QUANTIZE", ("x",), "y", {})], ["x"], ["y"]
    )
    with pytest.raises(ExportFailed, match="input x: the input is in float"):
        require_integer(take_census(tables))


def test_each_kind_of_operator_is_one_problem_however_often_it_occurs() -> None:
    places = tuple(
        Place(operator=name, module=f"layer{index}", tensor="")
        for name in ("EXP", "ABS")
        for index in range(7)
    )
    with pytest.raises(ExportFailed) as caught:
        require_integer(census_of(places))
    first, second = caught.value.problems
    assert first.where.endswith("module layer3, module layer4 and 2 more")
    assert (first.found, second.found) == ("7 ABS in float32", "7 EXP in float32")


def census_of(in_float: tuple[Place, ...]) -> Census:
    return Census(
        operators={},
        inputs={"image": "INT8"},
        outputs={"logits": "INT8"},
        float_tensors=("t",),
        in_float=in_float,
        hybrid=(),
        conversions=(),
        requantizations=(),
        transposes=(),
        int64_biases=(),
        int16_activations=(),
        half_weights=(),
    )


def integer_census(function: Callable[[Any], Any]) -> Census:
    """Of the int8 file of a net whose module `act` computes `function`."""
    from torch import nn

    from edgeship.exporters.tflite.conversion import convert
    from edgeship.exporters.tflite.integer import integer_model
    from edgeship.exporters.tflite.naming import with_names
    from edgeship.source.model import Model

    class Act(nn.Module):
        def forward(self, x: Any) -> Any:  # noqa: ANN401 - as above
            return function(x)

    contract = Contract(
        inputs=(TensorSpec(name="x", shape=(1, 8)),),
        outputs=(TensorSpec(name="y", shape=(1, 8)),),
    )
    layers = {"before": nn.Linear(8, 8), "act": Act(), "after": nn.Linear(8, 8)}
    net = nn.Sequential(OrderedDict(layers)).eval()
    tables = with_names(convert(Model(module=net, contract=contract)), contract)
    names = [tensor.name.decode() for tensor in tables.subgraphs[0].tensors]
    ranges = Ranges(by_name={name: Range(low=-4, high=4) for name in names}, dead=(), masks=())
    return take_census(read_model(integer_model(write_model(tables), ranges)))


@pytest.mark.slow
def test_real_operators_without_int8_are_named_with_their_module() -> None:
    import torch
    import torch.nn.functional as F

    cases: Mapping[str, tuple[Callable[[Any], Any], str]] = {
        "EXP": (torch.exp, "softmax"),
        "ABS": (torch.abs, "torch.maximum(x, -x)"),
        "LEAKY_RELU": (F.leaky_relu, "torch.maximum(x, slope * x)"),
        "SIN": (torch.sin, "put another operator in its place"),
    }
    for operator, (function, advice) in cases.items():
        census = integer_census(function)
        with pytest.raises(ExportFailed) as caught:
            require_integer(census)
        assert [str(place) for place in census.in_float] == [f"{operator} in act"]
        (problem,) = caught.value.problems
        assert advice in str(problem)
        assert 'match = "act"' in str(problem)
    normalized = integer_census(lambda x: F.normalize(x, dim=-1))
    assert {str(place) for place in normalized.in_float} == {"ABS in act"}


@pytest.mark.slow
def test_what_is_advised_instead_is_fully_integer() -> None:
    import torch

    cases: Mapping[str, Callable[[Any], Any]] = {
        "ABS": lambda x: torch.maximum(x, -x),
        "LEAKY_RELU": lambda x: torch.maximum(x, 0.01 * x),
        "MINIMUM": lambda x: -torch.maximum(-x, -(x * 2)),
        "POW": lambda x: x * x,
        "REDUCE_MAX": lambda x: x + -(-x).amin(1, keepdim=True),
        "RELU6": lambda x: x.relu() - (x - 6).relu(),
        "RELU_0_TO_1": lambda x: x.relu() - (x - 1).relu(),
        "REVERSE_V2": lambda x: x[:, [7, 6, 5, 4, 3, 2, 1, 0]],
        "CUMSUM": lambda x: x @ torch.ones(8, 8).triu(),
    }
    for operator, function in cases.items():
        census = integer_census(function)
        assert replacement_of(operator) != replacement_of("SIN"), operator
        require_integer(census)
        assert census.is_integer, (operator, census.operators)
        assert operator not in census.operators
