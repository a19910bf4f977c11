from __future__ import annotations

import numpy as np
import pytest

from edgeship.calibration.finding import Severity
from edgeship.calibration.observe import Statistics, observe
from edgeship.calibration.positions import audit_positions, find_position_outliers

TOKENS = 16


def hidden(peaks: dict[int, float], *, samples: int = 4, tokens: int = TOKENS) -> np.ndarray:
    """float32[samples, 1, tokens, 8] of magnitude 1 at most, a channel of some tokens larger."""
    values = np.random.default_rng(5).uniform(-1, 1, (samples, 1, tokens, 8)).astype(np.float32)
    values[:, :, :, 0] = 1.0  # so that each position's peak is exactly 1
    for position, peak in peaks.items():
        values[samples // 2, 0, position, 3] = peak
    return values


def observed(**tensors: np.ndarray) -> Statistics:
    count = len(next(iter(tensors.values())))
    rows = [{name: values[index] for name, values in tensors.items()} for index in range(count)]
    feed = ((str(index), {"row": np.array(index)}) for index in range(count))
    return observe(feed, lambda inputs: rows[int(inputs["row"])])


@pytest.mark.parametrize("peak", [223.0, -223.0])
def test_a_token_that_owns_the_range_is_found_by_position(peak: float) -> None:
    statistics = observed(sum=hidden({2: peak}), other=hidden({}))
    (outlier,) = find_position_outliers(statistics)

    assert (outlier.tensor, outlier.position, outlier.positions) == ("sum", 2, TOKENS)
    assert (outlier.absmax, outlier.median, outlier.ratio) == (223.0, 1.0, 223.0)
    assert str(outlier) == "position 2 reaches 223, the median of 16 positions 1"


def test_eight_times_the_median_is_no_outlier_and_a_little_more_is() -> None:
    at_limit, above = hidden({0: 8.0}), hidden({0: float(np.nextafter(np.float32(8), 9))})
    found = find_position_outliers(observed(at_limit=at_limit, above=above))
    assert [item.tensor for item in found] == ["above"]


def test_the_worst_comes_first_and_equals_by_name() -> None:
    statistics = observed(b=hidden({0: 20.0}), c=hidden({1: 90.0}), a=hidden({0: 20.0}))
    assert [item.tensor for item in find_position_outliers(statistics)] == ["c", "a", "b"]


def test_a_tensor_that_is_large_at_most_positions_has_no_outlier() -> None:
    many = hidden(dict.fromkeys(range(TOKENS // 2 + 1), 100.0))
    assert find_position_outliers(observed(many=many)) == []


def test_padding_that_is_zero_throughout_is_not_what_is_usual() -> None:
    values = hidden({0: 100.0})
    values[:, :, 5:] = 0.0
    (outlier,) = find_position_outliers(observed(values=values))
    assert (outlier.position, outlier.median) == (0, 1.0)
    values[:, :, 3:] = 0.0
    assert find_position_outliers(observed(values=values)) == []
    assert find_position_outliers(observed(dead=np.zeros_like(values))) == []


def test_flattened_tokens_are_positions_too_but_heads_and_images_are_not() -> None:
    values = hidden({7: 50.0})
    shapes = {
        "flat": (TOKENS, 8),
        "heads": (2, TOKENS, 4),
        "image": (1, 1, TOKENS, 8),
        "features": (1, TOKENS * 8),
    }
    statistics = observed(**{name: values.reshape(4, *shape) for name, shape in shapes.items()})
    (outlier,) = find_position_outliers(statistics)
    assert (outlier.tensor, outlier.position) == ("flat", 7)


def test_a_mask_at_a_position_is_no_outlier() -> None:
    values = hidden({})
    values[1, 0, 3] = -3.4e38
    assert find_position_outliers(observed(values=values)) == []


def test_the_finding_names_the_worst_tensor_and_the_position_that_most_share() -> None:
    statistics = observed(
        sum=hidden({0: 223.0}), square=hidden({0: 900.0}), late=hidden({9: 20.0}), plain=hidden({})
    )
    (finding,) = audit_positions(statistics, {"square": "layer.2"})

    assert finding.severity is Severity.WARN
    assert finding.problem.where == "calibration: tensor square in layer.2"
    assert finding.problem.what == (
        "one token owns the range, as in 3 tensors (position 0 in 2 of them)"
    )
    assert finding.problem.found == "position 0 reaches 900, the median of 16 positions 1"


def test_no_outlier_is_no_finding_and_one_is_not_counted() -> None:
    assert audit_positions(observed(plain=hidden({}))) == []
    (finding,) = audit_positions(observed(sum=hidden({4: 223.0}), plain=hidden({})))
    assert finding.problem.what == "one token owns the range"


def test_merged_shards_have_the_outliers_of_one_pass() -> None:
    values = hidden({0: 60.0, 3: 30.0}, samples=6)
    values[5, 0, 11, 2] = -70.0
    whole = observed(sum=values)
    one, other = observed(sum=values[1::2]), observed(sum=values[0::2])
    merged = {"sum": one["sum"].merged(other["sum"])}
    assert find_position_outliers(merged) == find_position_outliers(whole)
    assert find_position_outliers(whole)[0].position == 11
