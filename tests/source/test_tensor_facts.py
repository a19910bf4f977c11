import hashlib
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.source import tensor_source
from edgeship.source.element import Bits, ElementType
from edgeship.source.tensor_facts import TensorFacts, scan_tensor
from edgeship.source.tensor_source import Span, TensorEntry


class ArraySource:
    """A `TensorSource` over one array."""

    def __init__(self, array: np.ndarray, element: ElementType = ElementType.F32) -> None:
        self._bits: Bits = np.ascontiguousarray(array).reshape(-1).view(element.bits_dtype)
        self._entry = TensorEntry(name="w", element=element, shape=array.shape)

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        return {"w": self._entry}

    def read(self, name: str, span: Span) -> Bits:
        assert name == "w"
        return self._bits[span.start : span.start + span.count]


def scan(values: object, element: ElementType = ElementType.F32) -> TensorFacts:
    return scan_tensor(ArraySource(np.asarray(values, np.float32), element), "w")


def test_zeros_of_both_signs_count_and_the_smallest_numbers_do_not() -> None:
    facts = scan([0.0, -0.0, 1e-45, -3.0])
    assert (facts.zeros, facts.zero_share, facts.absmax) == (2, 0.5, 3.0)


def test_what_is_not_finite_is_counted_and_left_out_of_absmax() -> None:
    facts = scan([np.nan, -np.inf, np.inf, -2.5, 0.0])
    assert (facts.non_finite, facts.absmax, facts.zeros) == (3, 2.5, 1)
    assert scan([np.nan]).absmax is None


def test_an_empty_tensor_has_no_facts() -> None:
    facts = scan(np.empty((3, 0)))
    assert (facts.zeros, facts.zero_share, facts.absmax) == (0, 0.0, None)
    assert (facts.zero_outputs, facts.zero_inputs) == (None, None)
    assert facts.sha256 == hashlib.sha256().hexdigest()


def test_near_zero_is_told_of_vectors_of_floats() -> None:
    assert scan([0.0, 9e-4, -5e-4, 2e-3, np.nan]).near_zero == 3
    assert scan([[0.0]]).near_zero is None


def test_channels_are_the_first_two_axes() -> None:
    weight = np.ones((4, 3, 2, 2))
    weight[1] = weight[3] = 0
    weight[:, 2] = 0
    facts = scan(weight)
    assert (facts.zero_outputs, facts.zero_inputs) == (2, 1)


def test_bf16_is_read_by_its_bits() -> None:
    bits = np.array([0x8000, 0x3FC0, 0x7F80, 0xC000], "<u2")  # -0, 1.5, inf, -2
    facts = scan_tensor(ArraySource(bits, ElementType.BF16), "w")
    assert (facts.zeros, facts.non_finite, facts.absmax) == (1, 1, 2.0)


@settings(max_examples=200, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
    limit=st.integers(4, 300),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_facts_do_not_depend_on_where_blocks_end(
    shape: tuple[int, ...], limit: int, seed: int, share: float
) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal(shape).astype(np.float32)
    weight[generator.random(shape) < share] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_source, "BLOCK_BYTES", limit)
        facts = scan(weight)
    assert facts.zeros == (weight == 0).sum()
    assert facts.absmax == np.abs(weight).max()
    assert facts.sha256 == hashlib.sha256(weight.tobytes()).hexdigest()
    if len(shape) > 1:
        others = tuple(range(1, len(shape)))
        assert facts.zero_outputs == (weight == 0).all(axis=others).sum()
        assert facts.zero_inputs == (weight == 0).all(axis=(0, *others[1:])).sum()
