from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from edgeship.targets.compatibility_versions import is_older, newest, version_key

NUMBERS = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(
    lambda parts: ".".join(str(part) for part in parts)
)
# Without pre-releases of pre-releases, and without .post1 behind a pre-release.
SUFFIXES = st.sampled_from(["", "rc1", "a2", "b10", ".dev3", "+cu12", "+local.1"])
VERSIONS = st.tuples(NUMBERS, SUFFIXES).map("".join)


@given(VERSIONS, VERSIONS)
def test_order_is_that_of_packaging(one: str, other: str) -> None:
    """But for local versions and the order among pre-releases of one version, which are equal."""
    left, right = Version(Version(one).public), Version(Version(other).public)
    are_equal = left.is_prerelease and right.is_prerelease and base(left) == base(right)
    assert is_older(one, other) == (left < right and not are_equal)


def base(version: Version) -> Version:
    return Version(version.base_version)


@given(VERSIONS)
def test_no_version_is_older_than_itself(version: str) -> None:
    assert not is_older(version, version)


@given(NUMBERS, st.integers(1, 3))
def test_zeros_at_the_end_do_not_count(version: str, zeros: int) -> None:
    assert version_key(version) == version_key(version + ".0" * zeros)


@given(st.text(max_size=12))
def test_any_text_is_read_or_is_no_version(text: str) -> None:
    begins_with_a_digit = text.strip().removeprefix("v")[:1] in set("0123456789")
    assert (version_key(text) is not None) == begins_with_a_digit


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2.9", "2.14"),
        ("2.9.0", "2.14.0"),
        ("1.17.0rc1", "1.17.0"),
        ("2.4.0.dev20251101", "2.4.0"),
        ("10.3.0.30-1+cuda12.5", "10.3.1"),
        ("2.31-0ubuntu9.9", "2.34"),
        ("3.4.9", "3.4.30"),
        ("2.0.0-rc.1", "2.0"),
    ],
)
def test_order(older: str, newer: str) -> None:
    assert is_older(older, newer)
    assert not is_older(newer, older)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2.0", "2.0.0"),
        ("v0.5.0", "0.5.0"),
        ("5.1.2-b104", "5.1.2"),
        ("6.2+b77", "6.2"),
        ("1.2.post1", "1.2"),
        ("2.36-9+deb12u4", "2.36"),
        ("0", "0.0"),
    ],
)
def test_what_does_not_count(one: str, other: str) -> None:
    assert version_key(one) == version_key(other)


@pytest.mark.parametrize("text", ["", "b4321", "unknown", ".1", "²", "9" * 5000])
def test_what_is_no_version_is_older_than_nothing(text: str) -> None:
    assert version_key(text) is None
    assert not is_older(text, "1.0")
    assert not is_older("1.0", text)


def test_newest_of_several() -> None:
    assert newest(["2.9", "unknown", "2.14", "2.14rc1"]) == "2.14"
    assert newest(["2.9", None, "2.34", "2.4"]) == "2.34"
    assert newest(iter(["3.4", "3.4.1", "3.10"])) == "3.10"
    assert newest(["unknown", None]) is None
    assert newest([]) is None
