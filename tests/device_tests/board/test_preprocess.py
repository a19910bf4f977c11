from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.calibration.preprocess import input_from_pixels as own_input
from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.device_tests.board.preprocess import input_from_pixels, pixels_of, recipe_of
from edgeship.device_tests.board.tensors import real
from edgeship.runtimes.adapter import dequantize, encode_inputs
from edgeship.vocabulary import ChannelOrder, Layout

MEANS = st.floats(0, 1, width=32)
STDS = st.floats(2**-9, 2, width=32)
SCALES = st.floats(2**-12, 4, width=32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    order=st.sampled_from(list(ChannelOrder)),
    layout=st.sampled_from([Layout.NCHW, Layout.NHWC]),
    numbers=st.tuples(MEANS, MEANS, MEANS, STDS, STDS, STDS),
    quantized=st.none()
    | st.tuples(st.sampled_from(["int8", "uint8"]), SCALES, st.integers(-128, 255)),
)
def test_a_board_makes_the_same_bits_as_the_host(
    seed: int,
    order: ChannelOrder,
    layout: Layout,
    numbers: tuple[float, ...],
    quantized: tuple[str, float, int] | None,
) -> None:
    channels = 1 if order is ChannelOrder.GRAY else 3
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 5, channels), dtype=np.uint8)
    preprocess = Preprocess(
        size=(3, 5), order=order, mean=numbers[:channels], std=numbers[3 : 3 + channels]
    )
    model = TensorSpec(
        name="image", shape=(1, channels, 3, 5), layout=Layout.NCHW, preprocess=preprocess
    )
    shape = (1, 3, 5, channels) if layout is Layout.NHWC else model.shape
    spec = replace(model, layout=layout, shape=shape)
    if quantized is not None:
        dtype, scale, zero_point = quantized
        spec = replace(spec, dtype=dtype, scale=scale, zero_point=zero_point)
    floats = {"image": own_input(pixels, model)}
    wanted = encode_inputs(floats, [model], Contract(inputs=(spec,), outputs=()))["image"]
    described = spec.to_json()
    raw = np.frombuffer(pixels.tobytes(), np.uint8)
    found = input_from_pixels(pixels_of(raw, described), described, recipe_of(described))
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert found.tobytes() == wanted.tobytes()
    if quantized is not None:
        np.testing.assert_array_equal(real(found, described), dequantize(wanted, spec))
