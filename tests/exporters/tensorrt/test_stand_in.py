from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeship.calibration.ranges import Ranges
from edgeship.exporters.half import half_graph
from edgeship.exporters.tensorrt.insertion import with_pairs
from edgeship.exporters.tensorrt.opset import at_opset
from edgeship.exporters.tensorrt.placement import placement
from edgeship.exporters.tensorrt.scales import activation_scales
from edgeship.exporters.tensorrt.stand_in import lifted

Make = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, np.ndarray]]
Ranged = Callable[[onnx.ModelProto], Ranges]
NET = """
net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] out)
{
    c1 = Conv(x, w1, b1)
    r1 = Relu(c1)
    c2 = Conv(r1, w2, b1)
    a = Add(c2, r1)
    r2 = Relu(a)
    out = Conv(r2, w3)
}
"""


def quantized(make_graph: Make, observed: Ranged, *, is_half: bool) -> onnx.ModelProto:
    shapes = dict.fromkeys(("w1", "w2", "w3"), (16, 16, 1, 1))
    proto = make_graph(NET, **shapes, b1=(16,))
    ranges = observed(proto)
    placed = placement(proto, ranges)
    base = at_opset(half_graph(proto, ranges, ()).proto, 19).proto if is_half else proto
    return with_pairs(base, placed, activation_scales(placed.groups, ranges))


def types_of(proto: onnx.ModelProto) -> set[int]:
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    found = {value.type.tensor_type.elem_type for value in values}
    return found | {item.data_type for item in inferred.initializer}


def test_no_float16_is_left_and_every_code_is_the_same(
    make_graph: Make, observed: Ranged, run: Run
) -> None:
    proto = quantized(make_graph, observed, is_half=True)
    assert TensorProto.FLOAT16 in types_of(proto)
    result = lifted(proto)
    onnx.checker.check_model(result, full_check=True)
    assert types_of(result) <= {TensorProto.FLOAT, TensorProto.INT8}
    weights = [
        node.output[0]
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0].startswith("w")
    ]
    assert len(weights) == 3
    codes = run(proto, names=weights, is_optimized=False)
    for name, values in run(result, names=weights, is_optimized=False).items():
        assert values.dtype == np.int8
        # a weight halfway between two codes may go either way: the division is in another type
        assert np.abs(values.astype(int) - codes[name]).max() <= 1
        assert (values != codes[name]).mean() < 0.01


@pytest.mark.parametrize("is_half", [False, True])
def test_the_optimiser_of_the_runtime_changes_no_rounding(
    make_graph: Make, observed: Ranged, run: Run, is_half: bool
) -> None:
    result = lifted(quantized(make_graph, observed, is_half=is_half))
    plain, optimized = run(result, is_optimized=False), run(result)
    # sums in another order; one code more or less would be a hundred times that
    limit = 1e-5 * np.abs(plain["out"]).max()
    assert np.abs(plain["out"] - optimized["out"]).max() <= limit


def test_a_float_graph_stays_what_it_is(make_graph: Make, run: Run) -> None:
    shapes = dict.fromkeys(("w1", "w2", "w3"), (16, 16, 1, 1))
    proto = make_graph(NET, **shapes, b1=(16,))
    before = proto.SerializeToString(deterministic=True)
    assert np.array_equal(run(lifted(proto))["out"], run(proto)["out"])
    assert proto.SerializeToString(deterministic=True) == before
