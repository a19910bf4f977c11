from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.vocabulary import ChannelOrder, Layout, Resize

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
DIMENSIONS = st.integers(1, 4096)


@st.composite
def preprocesses(draw: st.DrawFn) -> Preprocess:
    order = draw(st.sampled_from(ChannelOrder))
    channels = 1 if order is ChannelOrder.GRAY else 3
    return Preprocess(
        size=draw(st.tuples(DIMENSIONS, DIMENSIONS)),
        resize=draw(st.sampled_from(Resize)),
        order=order,
        mean=tuple(draw(st.lists(NUMBERS, min_size=channels, max_size=channels))),
        std=tuple(draw(st.lists(NUMBERS, min_size=channels, max_size=channels))),
    )


SPECS = st.builds(
    TensorSpec,
    name=st.text(),
    shape=st.lists(DIMENSIONS, max_size=5).map(tuple),
    dtype=st.sampled_from(["float32", "int8", "uint8", "int64"]),
    layout=st.none() | st.sampled_from(Layout),
    scale=st.none() | NUMBERS,
    zero_point=st.none() | st.integers(-128, 255),
    preprocess=st.none() | preprocesses(),
    labels=st.none() | st.text(),
)
CONTRACTS = st.builds(
    Contract,
    inputs=st.lists(SPECS, max_size=3).map(tuple),
    outputs=st.lists(SPECS, max_size=3).map(tuple),
)


@given(CONTRACTS)
@settings(deadline=None, max_examples=50)
def test_contract_survives_json(contract: Contract) -> None:
    assert Contract.from_json(json.loads(json.dumps(contract.to_json()))) == contract


@given(preprocesses())
@settings(deadline=None, max_examples=50)
def test_preprocess_survives_json(preprocess: Preprocess) -> None:
    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess


@given(preprocesses())
@settings(deadline=None, max_examples=50)
def test_channels_are_those_of_mean_and_std(preprocess: Preprocess) -> None:
    assert preprocess.channels == len(preprocess.mean) == len(preprocess.std)


def test_what_is_not_set_is_not_in_the_json() -> None:
    assert TensorSpec(name="x", shape=(1, 2)).to_json() == {
        "name": "x",
        "shape": [1, 2],
        "dtype": "float32",
    }


def test_a_zero_point_of_zero_is_set() -> None:
    assert TensorSpec(name="x", shape=(1,), scale=1.0, zero_point=0).to_json()["zero_point"] == 0


def test_contract_cannot_be_changed() -> None:
    spec = TensorSpec(name="x", shape=(1,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "y"  # type: ignore[misc]  # what this test is about
