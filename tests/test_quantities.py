from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.quantities import (
    bytes_from_text,
    fraction_from_points,
    milliseconds_from_text,
    text_from_bytes,
)

# Written out once more, digit by digit, so that a slip in a prefix shows.
BYTES = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1_024,
    "MiB": 1_048_576,
    "GiB": 1_073_741_824,
}
PARSERS: tuple[Callable[[str], float], ...] = (
    bytes_from_text,
    milliseconds_from_text,
    fraction_from_points,
)


@given(st.integers(0, 10**18 - 1), st.sampled_from(sorted(BYTES)), st.sampled_from(["", " ", "  "]))
@settings(deadline=None)
def test_whole_sizes_are_exact_in_every_unit(number: int, unit: str, space: str) -> None:
    assert bytes_from_text(f"{number}{space}{unit}") == number * BYTES[unit]


@given(st.integers(0, 10**9), st.integers(0, 999_999), st.sampled_from(sorted(BYTES)))
@settings(deadline=None)
def test_sizes_with_decimals_lose_only_the_fraction_of_a_byte(
    whole: int, millionths: int, unit: str
) -> None:
    exact = (whole * 10**6 + millionths) * BYTES[unit]
    assert bytes_from_text(f"{whole}.{millionths:06d} {unit}") == exact // 10**6


@pytest.mark.parametrize(
    ("text", "count"),
    [("400 kB", 400_000), ("1.001 kB", 1_001), ("1.5 MiB", 1_572_864), ("0 B", 0), ("1.9 B", 1)],
)
def test_size_from_text(text: str, count: int) -> None:
    assert bytes_from_text(text) == count


@given(st.integers(0, 10**16))
@settings(deadline=None)
def test_size_shown_to_people_reads_back_to_half_of_its_last_digit(count: int) -> None:
    text = text_from_bytes(count)
    unit = BYTES[text.split()[1]]
    # One decimal: off by at most half of a tenth, and by the byte that parsing cuts off. From
    # 2**53 on the quotient is a float64 of 53 bits: relative error 2**-53 < 1e-15.
    tolerance = 0 if unit == 1 else unit / 20 + 1 + count * 1e-15
    assert abs(bytes_from_text(text) - count) <= tolerance


@given(st.one_of(st.integers(0, 10**12), st.integers(999_900, 1_000_100)))
@settings(deadline=None)
def test_size_shown_to_people_has_at_most_three_digits_before_the_point(count: int) -> None:
    number, unit = text_from_bytes(count).split()
    assert unit == "GB" or float(number) < 1000


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (334_320, "334.3 kB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (1_000_000, "1.0 MB"),
        (999_999_999, "1.0 GB"),
        (5_000_000_000_000, "5000.0 GB"),
    ],
)
def test_text_from_bytes(count: int, text: str) -> None:
    assert text_from_bytes(count) == text


@given(st.integers(0, 10**15))
@settings(deadline=None)
def test_durations_are_the_nearest_float_in_every_unit(number: int) -> None:
    assert milliseconds_from_text(f"{number} us") == number / 1000  # int / int rounds correctly
    assert milliseconds_from_text(f"{number} ms") == float(number)
    assert milliseconds_from_text(f"{number} s") == float(number * 1000)


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_points_are_the_nearest_float_to_hundredths(hundredths: int) -> None:
    text = f"{hundredths // 100}.{hundredths % 100:02d}"
    assert fraction_from_points(f"{text} pt") == hundredths / 10_000
    assert fraction_from_points(f"{text} %") == hundredths / 10_000


@given(st.fractions(min_value=Fraction(1001, 10), max_value=10**6))
@settings(deadline=None)
def test_more_than_all_points_cannot_be_lost(points: Fraction) -> None:
    with pytest.raises(ValueError, match="at most 100 pt"):
        fraction_from_points(f"{float(points):.6f} pt")


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "number", ["", "-1", "+1", "1.", ".5", "1,5", "1e3", "0x10", "inf", "nan", "1 000", "9" * 400]
)
def test_number_that_is_not_a_plain_decimal_is_refused(
    parse: Callable[[str], float], number: str
) -> None:
    for unit in ("B", "ms", "pt"):
        with pytest.raises(ValueError, match="a number with one of the units"):
            parse(f"{number} {unit}")


@pytest.mark.parametrize(
    ("parse", "text", "unit"),
    [
        (bytes_from_text, "400", "kB"),
        (bytes_from_text, "400 KB", "kB"),
        (bytes_from_text, "400 kb", "kB"),
        (bytes_from_text, "400 kB or so", "kB"),
        (milliseconds_from_text, "6 kB", "ms"),
        (milliseconds_from_text, "6 min", "ms"),
        (fraction_from_points, "0.01", "pt"),
        (fraction_from_points, "1 point", "pt"),
    ],
)
def test_wrong_unit_is_answered_with_the_right_ones(
    parse: Callable[[str], float], text: str, unit: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(unit)):
        parse(text)


@given(st.text() | st.from_regex(r"\s*\d+(\.\d+)?\s*[A-Za-z%]{1,3}\s*", fullmatch=True))
@settings(deadline=None)
def test_any_text_is_a_finite_amount_or_a_value_error(text: str) -> None:
    for parse in PARSERS:
        try:
            amount = parse(text)
        except ValueError:
            continue
        assert math.isfinite(amount)
        assert amount >= 0
