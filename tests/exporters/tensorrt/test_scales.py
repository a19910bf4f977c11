import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeship.calibration.ranges import Range, Ranges
from edgeship.exporters.tensorrt.scales import activation_scales, weight_scales, written_scales

FULL, HALF = np.dtype(np.float32), np.dtype(np.float16)
SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


def test_an_activation_is_symmetric_and_a_group_has_the_scale_of_its_largest() -> None:
    by_name = {"a": Range(low=-2, high=1), "b": Range(low=0, high=5), "c": Range(low=-3, high=0)}
    ranges = Ranges(by_name=by_name, dead=(), masks=())
    scales = activation_scales({"a": "a", "b": "a", "c": "c"}, ranges)
    assert scales == {"a": 5 / 127, "b": 5 / 127, "c": 3 / 127}


@pytest.mark.parametrize(("shape", "axis"), [((4, 3, 3, 3), 0), ((3, 4, 2, 2), 1), ((8, 4), 1)])
def test_a_weight_has_a_scale_for_each_output_channel(shape: tuple[int, ...], axis: int) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = [np.abs(np.take(values, index, axis)).max() / 127 for index in range(4)]
    assert np.allclose(weight_scales(values, axis), expected, rtol=1e-6)
    assert weight_scales(values, None).shape == ()


@pytest.mark.parametrize("kind", [FULL, HALF])
def test_pruned_channels_have_a_scale_above_zero(kind: np.dtype) -> None:
    weights = np.ones((4, 2), np.float32) * np.array([[0], [1e-30], [2.5e-7], [1]], np.float32)
    written = written_scales(weight_scales(weights, 0), kind)
    assert written.dtype == kind
    assert (written > 0).all()
    if kind == HALF:
        assert (written >= 6.2e-5).all()
        assert (written >= SMALLEST_NORMAL).all()
    assert written[3] == pytest.approx(1 / 127, rel=1e-3)


@settings(deadline=None)
@given(
    arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([FULL, HALF]),
)
def test_codes_stay_within_127_and_values_within_half_a_step(
    values: np.ndarray, kind: np.dtype
) -> None:
    typed = values.astype(kind)
    scales = written_scales(weight_scales(typed, 0), kind).astype(np.float64)[:, None]
    codes = np.rint(typed.astype(np.float64) / scales)
    assert np.abs(codes).max() <= 127
    # half a step, and at the end of the range the rounding of the scale itself: 127 * 2**-11
    limit = scales * (0.5 + (127 * 2**-11 if kind == HALF else 1e-5))
    assert (np.abs(codes * scales - typed) <= limit).all()


def test_a_scale_beyond_float16_is_its_largest() -> None:
    assert written_scales(1e6, HALF) == np.finfo(np.float16).max
