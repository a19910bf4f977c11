from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.tensorrt.narrowing import (
    is_narrowed,
    narrow_contract,
    with_narrow_types,
)
from edgeship.exporters.tensorrt.opset import at_opset
from edgeship.targets import load_target
from edgeship.targets.tensorrt_facts import TensorRtFacts, tensorrt_facts

Make = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, np.ndarray]]
LOOKUP = """
net (int64[1, 4] ids, int64[1, 4] mask) => (float[1, 4, 3] out, int64[1, 4] same)
{
    table = Gather(weights, ids)
    flags = Cast<to = 9>(mask)
    turned = GatherND(flags, index)
    kept = Cast<to = 1>(turned)
    k = Unsqueeze(kept, axis)
    out = Mul(table, k)
    same = Add(ids, mask)
}
"""


def facts(target: str, os: str | None = None) -> TensorRtFacts:
    return tensorrt_facts(load_target(target, os=os))


def lookup(make_graph: Make) -> onnx.ModelProto:
    index = np.array([[[0, 3], [0, 2], [0, 1], [0, 0]]], np.int64)
    weights = np.arange(30, dtype=np.float32).reshape(10, 3)
    return make_graph(LOOKUP, weights=weights, index=index, axis=np.array([2], np.int64))


@pytest.mark.parametrize(
    ("target", "os", "expected"),
    [
        ("jetson-nano", None, True),
        ("jetson-orin-nano", "jetpack-5", True),
        ("jetson-orin-nano", "jetpack-6", False),
        ("jetson-orin-nano", "jetpack-7", False),
    ],
)
def test_integers_are_narrowed_before_tensorrt_10(
    target: str, os: str | None, expected: bool
) -> None:
    assert is_narrowed(facts(target, os)) == expected


@pytest.mark.parametrize("target", ["jetson-nano", "jetson-agx-xavier"])
def test_narrow_inputs_give_the_same_values(make_graph: Make, run: Run, target: str) -> None:
    proto = lookup(make_graph)
    result = at_opset(with_narrow_types(proto, facts(target)), 13).proto
    onnx.checker.check_model(result, full_check=True)
    ends = (*result.graph.input, *result.graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in ends}
    assert kinds == {
        "ids": TensorProto.INT32,
        "mask": TensorProto.INT32,
        "out": TensorProto.FLOAT,
        "same": TensorProto.INT32,
    }
    inputs = {"ids": np.array([[1, 9, 4, 0]]), "mask": np.array([[1, 0, 1, 1]])}
    narrow = {name: values.astype(np.int32) for name, values in inputs.items()}
    expected, found = run(proto, inputs), run(result, narrow)
    assert np.array_equal(found["out"], expected["out"])
    assert found["same"].dtype == np.int32
    assert np.array_equal(found["same"], expected["same"])


def test_bools_are_moved_as_integers_where_the_operator_takes_no_bools(make_graph: Make) -> None:
    inputs = {}
    for target in ("jetson-nano", "jetson-agx-xavier"):
        result = with_narrow_types(lookup(make_graph), facts(target))
        (moved,) = (node for node in result.graph.node if node.op_type == "GatherND")
        inputs[target] = moved.input[0]
    assert inputs == {"jetson-nano": "n_turned_flags_int32", "jetson-agx-xavier": "flags"}


def test_the_contract_says_what_the_graphs_take() -> None:
    spec = TensorSpec(name="ids", shape=(1, 4), dtype="int64")
    contract = Contract(inputs=(spec,), outputs=(replace(spec, name="out", dtype="float32"),))
    narrow = narrow_contract(contract)
    assert narrow.inputs == (replace(spec, dtype="int32"),)
    assert narrow.outputs == contract.outputs
