from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tensorrt.eligibility import Reason
from edgeship.exporters.tensorrt.placement import Placement, placement

SAME = "pads = [1, 1, 1, 1]"
RESIDUAL = f"""
net (float[1, 3, 8, 8] x) => (float[1, 16, 8, 8] out)
{{
    c1 = Conv<{SAME}>(x, w1)
    r1 = Relu(c1)
    c2 = Conv<{SAME}>(r1, w2)
    r2 = Relu(c2)
    c3 = Conv<{SAME}>(r2, w3)
    a3 = Add(c3, r1)
    r3 = Relu(a3)
    out = Conv<{SAME}>(r3, w4)
}}
"""
SHORTCUT = f"""
net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] out)
{{
    s = Conv(x, w1)
    c1 = Conv<{SAME}>(x, w2)
    r1 = Relu(c1)
    c2 = Conv<{SAME}>(r1, w3)
    a = Add(s, c2)
    r2 = Relu(a)
    out = Conv<{SAME}>(r2, w4)
}}
"""
JOINED = """
net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] out)
{
    c1 = Conv(x, w1)
    r2 = Relu(c1)
    c2 = Conv(r2, w2)
    r3 = Relu(c2)
    j4 = Concat<axis = 1>(r2, r3)
    out = Conv(j4, w3)
}
"""
PADDED = """
net (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] out)
{
    p = Pad(x, pads, value)
    c1 = Conv(p, w1)
    r1 = Relu(c1)
    p1 = Pad<mode = "reflect">(r1, pads)
    out = Conv(p1, w2)
}
"""
POOLED = f"""
net (float[1, 16, 8, 8] x) => (float[1, 10] out)
{{
    c1 = Conv<{SAME}>(x, w1)
    r1 = Relu(c1)
    m1 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r1)
    c2 = Conv<{SAME}>(m1, w2)
    r2 = Relu(c2)
    g = GlobalAveragePool(r2)
    f = Flatten(g)
    out = Gemm<transB = 1>(f, w3)
}}
"""
ATTENTION = """
net (float[1, 32, 32] x) => (float[1, 32, 32] out)
{
    q = MatMul(x, w1)
    k = MatMul(x, w2)
    v = MatMul(x, w3)
    t = Transpose<perm = [0, 2, 1]>(k)
    s = MatMul(q, t)
    d = Div(s, scale)
    p = Softmax<axis = -1>(d)
    c = MatMul(p, v)
    o = MatMul(c, w4)
    out = Add(o, x)
}
"""
PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
SQUARE = (16, 16, 3, 3)
Make = Callable[..., onnx.ModelProto]
Ranged = Callable[[onnx.ModelProto], Ranges]


def read(placed: Placement) -> dict[str, str]:
    """Quantized tensors by what reads them: `node:position`."""
    return {f"{name}:{index}": tensor for (name, index), tensor in placed.activations.items()}


def test_of_a_residual_add_the_skip_branch_alone_is_quantized(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    proto = make_graph(RESIDUAL, w1=(16, 3, 3, 3), w2=SQUARE, w3=SQUARE, w4=SQUARE)
    placed = placement(proto, unit_ranges(proto))
    assert read(placed) == {
        "n_c1:0": "x",
        "n_c2:0": "r1",
        "n_c3:0": "r2",
        "n_out:0": "r3",
        "n_a3:1": "r1",
    }
    assert placed.weights == {(f"n_{name}", 1): 0 for name in ("c1", "c2", "c3", "out")}
    assert placed.tensors == ("x", "r1", "r2", "r3")
    assert placed.refused == {}


@pytest.mark.parametrize("order", [("s", "c2"), ("c2", "s")])
def test_of_two_convolutions_the_shortcut_is_quantized(
    make_graph: Make, unit_ranges: Ranged, order: Sequence[str]
) -> None:
    text = SHORTCUT.replace("Add(s, c2)", f"Add({', '.join(order)})")
    proto = make_graph(text, w1=(16, 16, 1, 1), w2=SQUARE, w3=SQUARE, w4=SQUARE)
    takers = read(placement(proto, unit_ranges(proto)))
    assert takers[f"n_a:{order.index('s')}"] == "s"
    assert f"n_a:{order.index('c2')}" not in takers


def test_an_add_that_leads_to_no_integer_layer_stays_float(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    text = SHORTCUT.replace("out = Conv<pads = [1, 1, 1, 1]>(r2, w4)", "out = Sigmoid(r2)")
    proto = make_graph(text, w1=(16, 16, 1, 1), w2=SQUARE, w3=SQUARE)
    assert not [taker for taker in read(placement(proto, unit_ranges(proto))) if "n_a" in taker]


def test_what_a_concat_joins_has_one_scale(make_graph: Make, unit_ranges: Ranged) -> None:
    one = (16, 16, 1, 1)
    proto = make_graph(JOINED, w1=one, w2=one, w3=(16, 32, 1, 1))
    placed = placement(proto, unit_ranges(proto))
    takers = read(placed)
    assert (takers["n_j4:0"], takers["n_j4:1"], takers["n_out:0"]) == ("r2", "r3", "j4")
    assert placed.groups == {"x": "x", "r2": "r2", "r3": "r2", "j4": "r2"}


def test_a_concat_with_an_input_that_was_not_seen_reads_floats(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    one = (16, 16, 1, 1)
    proto = make_graph(JOINED, w1=one, w2=one, w3=(16, 32, 1, 1))
    ranges = unit_ranges(proto)
    seen = {name: item for name, item in ranges.by_name.items() if name != "r3"}
    placed = placement(proto, replace(ranges, by_name=seen))
    assert "n_j4:0" not in read(placed)
    assert read(placed)["n_out:0"] == "j4"
    assert len({*placed.groups.values()}) == 3


def test_no_pair_stands_between_a_pad_and_its_convolution(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    zero = np.zeros((), np.float32)
    proto = make_graph(PADDED, w1=SQUARE, w2=SQUARE, pads=PADS, value=zero)
    placed = placement(proto, unit_ranges(proto))
    assert read(placed) == {"n_p:0": "x", "n_p1:0": "r1"}
    assert len(placed.weights) == 2


def test_a_convolution_padded_with_another_value_stays_float(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    one = np.ones((), np.float32)
    proto = make_graph(PADDED, w1=SQUARE, w2=SQUARE, pads=PADS, value=one)
    placed = placement(proto, unit_ranges(proto))
    assert placed.refused == {"n_c1": Reason.PAD}
    assert read(placed) == {"n_p1:0": "r1"}


def test_pools_between_integer_layers_are_quantized_and_a_maximum_keeps_the_scale(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    proto = make_graph(POOLED, w1=SQUARE, w2=SQUARE, w3=(10, 16))
    placed = placement(proto, unit_ranges(proto))
    assert read(placed) == {"n_c1:0": "x", "n_c2:0": "m1", "n_m1:0": "r1", "n_g:0": "r2"}
    assert placed.groups["m1"] == placed.groups["r1"]
    assert placed.refused == {"n_out": Reason.VECTOR}


def test_attention_keeps_all_but_its_weighted_layers_in_float(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    weights = {f"w{index}": (32, 32) for index in range(1, 5)}
    proto = make_graph(ATTENTION, **weights, scale=np.asarray(4, np.float32))
    placed = placement(proto, unit_ranges(proto))
    expected = {"n_q:0": "x", "n_k:0": "x", "n_v:0": "x", "n_o:0": "c"}
    assert read(placed) == expected
    assert placed.weights == {(f"n_{name}", 1): 1 for name in "qkvo"}
    assert placed.refused == {"n_s": Reason.ATTENTION, "n_c": Reason.ATTENTION}


def test_both_sides_of_a_product_of_activations_are_quantized(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    text = """
    net (float[1, 32, 32] x) => (float[1, 32, 32] out)
    {
        r1 = Relu(x)
        out = MatMul(x, r1)
    }
    """
    proto = make_graph(text)
    placed = placement(proto, unit_ranges(proto))
    assert {"n_out:0": "x", "n_out:1": "r1"}.items() <= read(placed).items()
    assert not placed.weights


def conv(
    make_graph: Make, channels: int, weight: tuple[int, ...], **options: object
) -> onnx.ModelProto:
    """A convolution that is not the first one, named n_c."""
    text = ", ".join(f"{key} = {value}" for key, value in options.items())
    attributes = f"<{text}>" if text else ""
    return make_graph(
        f"""
        net (float[1, {channels}, 8, 8] x) => (float[n, m, h, w] out)
        {{
            a = Abs(x)
            c = Conv{attributes}(a, w1)
            out = Relu(c)
        }}
        """,
        w1=weight,
    )


@pytest.mark.parametrize(
    ("channels", "weight", "options", "expected"),
    [
        (16, (16, 16, 3, 3), {}, None),
        (16, (12, 16, 3, 3), {}, Reason.CHANNELS),
        (12, (16, 12, 3, 3), {}, Reason.CHANNELS),
        (8, (8, 8, 3, 3), {}, None),
        (8, (8, 8, 3, 1), {}, Reason.CHANNELS),
        (32, (32, 1, 3, 3), {"group": 32}, None),
        (12, (12, 1, 3, 3), {"group": 12}, Reason.CHANNELS),
    ],
)
def test_a_convolution_with_few_channels_stays_float(
    make_graph: Make,
    unit_ranges: Ranged,
    channels: int,
    weight: tuple[int, ...],
    options: dict[str, object],
    expected: Reason | None,
) -> None:
    proto = conv(make_graph, channels, weight, **options)
    placed = placement(proto, unit_ranges(proto))
    assert placed.refused == ({} if expected is None else {"n_c": expected})
    assert bool(placed.weights) == (expected is None)


def test_the_first_convolution_is_quantized_however_few_channels_an_image_has(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    text = "net (float[1, 3, 8, 8] x) => (float[1, 12, 6, 6] out) { out = Conv(x, w1) }"
    proto = make_graph(text, w1=(12, 3, 3, 3))
    assert placement(proto, unit_ranges(proto)).weights == {("n_out", 1): 0}


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "expected"),
    [
        (16, 16, 16, None),
        (2, 64, 16, None),
        (16, 15, 16, Reason.MATRIX),
        (16, 16, 15, Reason.MATRIX),
        (1, 64, 64, Reason.VECTOR),
        (64, 64, 1, Reason.VECTOR),
    ],
)
@pytest.mark.parametrize("kind", ["MatMul(x, w1)", "Gemm(x, w1)", "Gemm<transB = 1>(x, w1)"])
def test_a_small_product_stays_float(
    make_graph: Make,
    unit_ranges: Ranged,
    kind: str,
    rows: int,
    depth: int,
    columns: int,
    expected: Reason | None,
) -> None:
    text = f"net (float[{rows}, {depth}] x) => (float[{rows}, {columns}] out) {{ out = {kind} }}"
    shape = (columns, depth) if "transB" in kind else (depth, columns)
    proto = make_graph(text, w1=shape)
    placed = placement(proto, unit_ranges(proto))
    assert placed.refused == ({} if expected is None else {"n_out": expected})
    axis = {("n_out", 1): 0 if "transB" in kind else 1}
    assert placed.weights == ({} if expected else axis)


def test_a_rule_overrules_the_size_and_not_the_structure(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    proto = make_graph(POOLED, w1=SQUARE, w2=SQUARE, w3=(10, 16))
    ranges = unit_ranges(proto)
    forced = placement(proto, ranges, forced=["n_out"])
    assert forced.weights[("n_out", 1)] == 0
    assert read(forced)["n_out:0"] == "f"
    kept = placement(proto, ranges, kept=["n_c2"])
    assert kept.refused == {"n_c2": Reason.RULE, "n_out": Reason.VECTOR}
    assert "n_c2:0" not in read(kept)
    assert "n_g:0" not in read(kept)


@pytest.mark.parametrize("why", ["mask", "zeros", "unseen"])
def test_a_layer_whose_input_gives_no_scale_stays_float(
    make_graph: Make, unit_ranges: Ranged, why: str
) -> None:
    proto = make_graph(RESIDUAL, w1=(16, 3, 3, 3), w2=SQUARE, w3=SQUARE, w4=SQUARE)
    ranges = unit_ranges(proto)
    seen = dict(ranges.by_name)
    if why == "zeros":
        seen["r2"] = Range(low=0.0, high=0.0)
    elif why == "unseen":
        del seen["r2"]
    ranges = Ranges(by_name=seen, dead=(), masks=("r2",) if why == "mask" else ())
    placed = placement(proto, ranges)
    assert placed.refused == {"n_c3": Reason.RANGE}
    assert "r2" not in placed.tensors
    assert ("n_c3", 1) not in placed.weights


def test_a_grouped_transposed_convolution_stays_float(
    make_graph: Make, unit_ranges: Ranged
) -> None:
    for group, expected in ((1, {}), (2, {"n_c": Reason.GROUPS})):
        text = f"""
        net (float[1, 16, 8, 8] x) => (float[1, 16, 10, 10] out)
        {{
            c = ConvTranspose<group = {group}>(x, w1)
            out = Relu(c)
        }}
        """
        proto = make_graph(text, w1=(16, 16 // group, 3, 3))
        placed = placement(proto, unit_ranges(proto))
        assert placed.refused == expected
        assert placed.weights == ({("n_c", 1): 1} if group == 1 else {})
