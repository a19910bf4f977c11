import ml_dtypes
import numpy as np
import pytest

from edgeship.source.element import (
    ElementType,
    first_non_finite,
    magnitudes,
    value_of,
    widen,
)

REFERENCE = {
    ElementType.F16: np.float16,
    ElementType.BF16: ml_dtypes.bfloat16,
    ElementType.F8_E4M3: ml_dtypes.float8_e4m3fn,
    ElementType.F8_E5M2: ml_dtypes.float8_e5m2,
}
FLOATS = (*REFERENCE, ElementType.F32, ElementType.F64)


def all_bits(element: ElementType) -> np.ndarray:
    """Every pattern up to 16 bits, beyond that random ones with the corners."""
    if element.item_bytes <= 2:
        return np.arange(1 << (8 * element.item_bytes)).astype(element.bits_dtype)
    generator = np.random.default_rng(0)
    raw = np.frombuffer(generator.bytes(8000), element.bits_dtype)
    limit = first_non_finite(element) or 0
    top = 1 << (8 * element.item_bytes - 1)
    corners = [0, 1, limit - 1, limit, limit + 1, top, top + 1, 2 * top - 1]
    return np.concatenate([raw, np.array(corners, element.bits_dtype)])


@pytest.mark.parametrize("element", REFERENCE)
def test_every_small_float_widens_as_the_reference_does(element: ElementType) -> None:
    bits = all_bits(element)
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = bits.view(REFERENCE[element]).astype(np.float32)
        found = widen(bits, element)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


@pytest.mark.parametrize("element", FLOATS)
def test_magnitudes_order_as_absolute_values_and_split_off_what_is_not_finite(
    element: ElementType,
) -> None:
    bits = all_bits(element)
    with np.errstate(invalid="ignore"):
        values = np.abs(widen(bits, element).astype(np.float64))
    found = magnitudes(bits, element)
    finite = np.isfinite(values)
    limit = first_non_finite(element)
    assert limit is not None
    np.testing.assert_array_equal(found < limit, finite)
    order = np.argsort(found[finite], kind="stable")
    assert (np.diff(values[finite][order]) >= 0).all()
    np.testing.assert_array_equal(found == 0, values == 0)


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_magnitude_of_the_most_negative_integer_is_its_absolute_value(width: int) -> None:
    element = ElementType(f"I{width}")
    lowest = -(1 << (width - 1))
    bits = np.array([lowest, -1, 5], f"<i{width // 8}").view(element.bits_dtype)
    assert magnitudes(bits, element).tolist() == [-lowest, 1, 5]
    assert value_of(-lowest, element) == -lowest


def test_magnitudes_leave_their_input_unchanged() -> None:
    bits = np.array([0x8000], "<u2")
    bits.setflags(write=False)
    assert magnitudes(bits, ElementType.BF16).tolist() == [0]
    assert magnitudes(bits, ElementType.U16).tolist() == [0x8000]


def test_every_type_has_a_size() -> None:
    assert {element: element.item_bytes for element in ElementType}[ElementType.BF16] == 2
    assert all(element.bits_dtype.itemsize == element.item_bytes for element in ElementType)
