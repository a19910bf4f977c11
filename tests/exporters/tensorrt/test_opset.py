from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest

from edgeship.errors import ExportFailed
from edgeship.exporters.tensorrt.opset import at_opset, ir_version_of

Make = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, np.ndarray]]
ONE = np.array([1.0], np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


REDUCTIONS = [
    f"Reduce{kind}"
    for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
]
CASES: Mapping[str, tuple[str, Mapping[str, np.ndarray | tuple[int, ...]]]] = {
    **{
        f"{kind} over axes": (f"{kind}<keepdims = 0>(p, axes)", {"axes": ints(1, 3)})
        for kind in REDUCTIONS
    },
    **{f"{kind} over all": (f"{kind}(p)", {}) for kind in REDUCTIONS},
    "Add": ("Add(x, w)", {"w": (8,)}),
    "Sub": ("Sub(x, w)", {"w": (8,)}),
    "Mul": ("Mul(x, w)", {"w": (8,)}),
    "Div": ("Div(x, w)", {"w": (8,)}),
    "Pow": ("Pow(p, w)", {"w": floats(1.5)}),
    "Relu": ("Relu(x)", {}),
    "PRelu": ("PRelu(x, w)", {"w": (4, 1, 1)}),
    "LeakyRelu": ("LeakyRelu<alpha = 0.3>(x)", {}),
    "CumSum": ("CumSum(x, axis)", {"axis": np.asarray(2, np.int64)}),
    "HardSwish": ("HardSwish(x)", {}),
    "Mish": ("Mish(x)", {}),
    "Reshape": ("Reshape<allowzero = 1>(x, shape)", {"shape": ints(2, -1)}),
    "Reshape that copies": ("Reshape(x, shape)", {"shape": ints(0, 0, -1)}),
    "Pad of all axes": ("Pad(x, pads, w)", {"pads": ints(0, 0, 1, 2, 0, 0, 3, 0), "w": ONE[0]}),
    "Pad of some axes": (
        "Pad(x, pads, w, axes)",
        {"pads": ints(1, 2, 3, 0), "axes": ints(3, -2), "w": np.asarray(0.5, np.float32)},
    ),
    "Pad by reflection": (
        'Pad<mode = "reflect">(x, pads, , axes)',
        {"pads": ints(2, 2), "axes": ints(2)},
    ),
    "Pad by its edge": ('Pad<mode = "edge">(x, pads)', {"pads": ints(0, 0, 2, 0, 0, 0, 1, 1)}),
    "Resize by scales": (
        'Resize<mode = "nearest">(x, , scales)',
        {"scales": floats(1, 1, 2, 2)},
    ),
    "Resize of some axes": (
        'Resize<mode = "linear", axes = [2, 3]>(x, , scales)',
        {"scales": floats(2, 1.5)},
    ),
    "Resize by sizes": (
        'Resize<mode = "linear", coordinate_transformation_mode = "align_corners",'
        " axes = [3, 2]>(x, , , sizes)",
        {"sizes": ints(5, 12)},
    ),
    "ScatterElements": (
        "ScatterElements<axis = 3>(x, index, w)",
        {"index": np.zeros((1, 1, 1, 1), np.int64), "w": (1, 1, 1, 1)},
    ),
    "ScatterND": ("ScatterND(x, index, w)", {"index": ints(0)[None], "w": (1, 4, 6, 8)}),
    "LayerNormalization": (
        "LayerNormalization<axis = -1, epsilon = 0.000001>(x, w, b)",
        {"w": (8,), "b": (8,)},
    ),
}


def net(make_graph: Make, expression: str, **constants: object) -> onnx.ModelProto:
    """`p` is positive; outputs' shapes are inferred."""
    text = f"""
    net (float[1, 4, 6, 8] x) => (float[m] out)
    {{
        a = Abs(x)
        p = Add(a, one)
        y = {expression}
        flat = Reshape(y, minus)
        out = Identity(flat)
    }}
    """
    return make_graph(text, one=floats(0.5), minus=ints(-1), **constants)


@pytest.mark.parametrize("opset", [13, 15, 17])
@pytest.mark.parametrize("name", CASES)
def test_an_older_operator_gives_the_same_bits(
    make_graph: Make, run: Run, name: str, opset: int
) -> None:
    expression, constants = CASES[name]
    proto = net(make_graph, expression, **constants)
    before = proto.SerializeToString(deterministic=True)
    result = at_opset(proto, opset).proto
    onnx.checker.check_model(result, full_check=True)
    assert [item.version for item in result.opset_import] == [opset]
    assert result.ir_version == {13: 7, 15: 8, 17: 8}[opset]
    assert np.array_equal(run(result)["out"], run(proto)["out"])
    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("count", [2, 3])
def test_parts_of_a_split_keep_their_sizes(
    make_graph: Make, run: Run, opset: int, count: int
) -> None:
    names = ["u", "v", "w"][:count]
    outputs = ", ".join(f"float[1, 4, k, 8] {name}" for name in names)
    text = f"""
    net (float[1, 4, 5, 8] x) => ({outputs})
    {{
        {", ".join(names)} = Split<axis = 2, num_outputs = {count}>(x)
    }}
    """
    proto = make_graph(text)
    result = at_opset(proto, opset).proto
    onnx.checker.check_model(result, full_check=True)
    expected, found = run(proto), run(result)
    assert [found[name].shape for name in names] == [expected[name].shape for name in names]
    assert all(np.array_equal(found[name], expected[name]) for name in names)


def test_a_layer_norm_in_steps_differs_by_rounding_alone_where_it_is_not_fused(
    make_graph: Make, run: Run
) -> None:
    for expression in ("LayerNormalization(x, w, b)", "LayerNormalization<axis = 2>(x, v)"):
        proto = net(make_graph, expression, w=(8,), b=(8,), v=(6, 8))
        result = at_opset(proto, 16)
        expected = run(proto, is_optimized=False)["out"]
        found = run(result.proto, is_optimized=False)["out"]
        # 48 values are summed in another order: a few units in the last place of float32
        assert np.abs(found - expected).max() <= 2**-20 * np.abs(expected).max()
        assert {*result.origins.values()} == {"n_y"}
        names = [node.name for node in result.proto.graph.node]
        assert len(names) == len({*names})
        assert "n_y" in names


def test_a_layer_norm_stays_where_the_opset_has_it(make_graph: Make) -> None:
    proto = net(make_graph, "LayerNormalization(x, w)", w=(8,))
    for opset in (17, 18, 19):
        kinds = [node.op_type for node in at_opset(proto, opset).proto.graph.node]
        assert "LayerNormalization" in kinds


@pytest.mark.parametrize("opset", [18, 19, 20, 21, 24])
def test_a_newer_opset_changes_the_number_alone(make_graph: Make, run: Run, opset: int) -> None:
    proto = net(make_graph, 'Resize<mode = "linear", axes = [2, 3]>(x, , w)', w=floats(2, 2))
    result = at_opset(proto, opset).proto
    onnx.checker.check_model(result, full_check=True)
    assert result.ir_version == ir_version_of(result)
    assert [node.op_type for node in result.graph.node] == [
        node.op_type for node in proto.graph.node
    ]
    assert np.array_equal(run(result)["out"], run(proto)["out"])


@pytest.mark.parametrize(
    ("expression", "constants", "opset", "found"),
    [
        ('Resize<antialias = 1, mode = "linear">(x, , w)', {"w": floats(1, 1, 2, 2)}, 17, "antia"),
        (
            'Resize<keep_aspect_ratio_policy = "not_larger">(x, , , w)',
            {"w": ints(1, 4, 6, 6)},
            17,
            "aspect ratio",
        ),
        ("Trilu(x)", {}, 13, "Trilu of opset 14"),
        (
            'ScatterND<reduction = "max">(x, i, w)',
            {"i": ints(0)[None], "w": (1, 4, 6, 8)},
            17,
            "ScatterND with reduction b'max'",
        ),
        (
            'ScatterND<reduction = "add">(x, i, w)',
            {"i": ints(0)[None], "w": (1, 4, 6, 8)},
            13,
            "ScatterND with reduction b'add'",
        ),
        ("GridSample(x, w)", {"w": (1, 2, 2, 2)}, 13, "GridSample of opset 16"),
        ("GridSample(x, w)", {"w": (1, 2, 2, 2)}, 20, "GridSample of opset 16"),
    ],
)
def test_what_has_no_form_in_that_opset_is_a_problem_that_names_the_node(
    make_graph: Make, expression: str, constants: Mapping[str, object], opset: int, found: str
) -> None:
    proto = net(make_graph, expression, **constants)
    scopes = "['', 'neck.up', 'node']"
    proto.graph.node[2].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    with pytest.raises(ExportFailed) as caught:
        at_opset(proto, opset)
    (problem,) = caught.value.problems
    assert problem.where == "graph: n_y of neck.up"
    assert f"opset {opset}" in problem.what
    assert found in str(problem.found)


def test_every_operator_that_does_not_fit_is_named_at_once(make_graph: Make) -> None:
    proto = net(make_graph, "Trilu(x)")
    proto.graph.node[1].op_type = "Trilu"
    del proto.graph.node[1].input[1:]
    with pytest.raises(ExportFailed) as caught:
        at_opset(proto, 13)
    assert len(caught.value.problems) == 2


def test_what_became_an_attribute_is_no_constant_any_more(make_graph: Make) -> None:
    proto = net(make_graph, "ReduceMean(x, axes)", axes=ints(2))
    names = {item.name for item in at_opset(proto, 17).proto.graph.initializer}
    assert names == {"one", "minus"}
    kept = {item.name for item in at_opset(proto, 18).proto.graph.initializer}
    assert kept == {"one", "minus", "axes"}
