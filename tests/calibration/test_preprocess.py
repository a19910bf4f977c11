import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeship.calibration.preprocess import input_from_pixels, pixels_from_image
from edgeship.contract import Preprocess, TensorSpec
from edgeship.errors import ConfigurationError, ExitCode
from edgeship.vocabulary import ChannelOrder, Layout, Resize

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
GREY = ChannelOrder.GRAY


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(height * 1000 + width)
    return generator.integers(0, 256, (height, width, channels), dtype=np.uint8)


def spec_of(order: ChannelOrder, layout: Layout | None, size: tuple[int, int]) -> TensorSpec:
    mean, std = ((0.3,), (0.7,)) if order is GREY else (MEAN, STD)
    preprocess = Preprocess(size=size, order=order, mean=mean, std=std)
    channels = preprocess.channels
    shape = (1, channels, *size) if layout is Layout.NCHW else (1, *size, channels)
    return TensorSpec(name="image", shape=shape, layout=layout, preprocess=preprocess)


def float32(value: Fraction) -> Fraction:
    """Rounded to the nearest float32, ties to even: 24 bits; the numbers here are all normal."""
    if not value:
        return value
    exponent = -24
    while abs(value) / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    while abs(value) / Fraction(2) ** exponent < 2**23:
        exponent -= 1
    unit = Fraction(2) ** exponent
    return round(value / unit) * unit


def exact_input(pixel: int, mean: float, std: float) -> float:
    """Each step in exact arithmetic, then rounded once."""
    share = float32(Fraction(pixel, 255))
    centred = float32(share - float32(Fraction(mean)))
    return float(float32(centred / float32(Fraction(std))))


# From pixels to an input


@pytest.mark.parametrize("layout", [Layout.NCHW, Layout.NHWC])
@pytest.mark.parametrize("order", list(ChannelOrder))
def test_each_value_is_rounded_to_float32_at_each_of_three_steps(
    order: ChannelOrder, layout: Layout
) -> None:
    spec = spec_of(order, layout, (16, 16))
    preprocess = spec.preprocess
    assert preprocess is not None
    channels = preprocess.channels
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)  # each level in each channel
    pixels = np.concatenate([np.roll(levels, 31 * c, axis=0) for c in range(channels)], axis=2)
    found = input_from_pixels(pixels, spec)
    assert found.dtype == np.float32
    assert found.shape == spec.shape
    assert found.flags.c_contiguous
    for y, x, c in np.ndindex(16, 16, channels):
        source = channels - 1 - c if order is ChannelOrder.BGR else c
        expected = exact_input(int(pixels[y, x, source]), preprocess.mean[c], preprocess.std[c])
        value = found[0, c, y, x] if layout is Layout.NCHW else found[0, y, x, c]
        assert value == expected, (y, x, c, value, expected)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(0, 255), st.floats(2**-20, 1), st.floats(0.01, 2))
def test_rounding_holds_for_any_mean_and_std(pixel: int, mean: float, std: float) -> None:
    preprocess = Preprocess(size=(1, 1), order=GREY, mean=(mean,), std=(std,))
    spec = TensorSpec(name="x", shape=(1, 1, 1, 1), layout=Layout.NCHW, preprocess=preprocess)
    found = input_from_pixels(np.full((1, 1, 1), pixel, np.uint8), spec)
    assert found.item() == exact_input(pixel, mean, std)


def test_bgr_exchanges_red_and_blue_before_mean_and_std() -> None:
    rgb = input_from_pixels(noise(4, 5), spec_of(ChannelOrder.RGB, Layout.NCHW, (4, 5)))
    bgr = input_from_pixels(noise(4, 5)[:, :, ::-1], spec_of(ChannelOrder.BGR, Layout.NCHW, (4, 5)))
    assert np.array_equal(rgb, bgr)


def test_layouts_hold_the_same_values() -> None:
    pixels = noise(6, 9)
    planes = input_from_pixels(pixels, spec_of(ChannelOrder.RGB, Layout.NCHW, (6, 9)))
    dots = input_from_pixels(pixels, spec_of(ChannelOrder.RGB, Layout.NHWC, (6, 9)))
    assert np.array_equal(planes.transpose(0, 2, 3, 1), dots)


@pytest.mark.parametrize("order", list(ChannelOrder))
def test_pixels_are_not_modified(order: ChannelOrder) -> None:
    pixels = noise(4, 4, 1 if order is GREY else 3)
    before = pixels.tobytes()
    input_from_pixels(pixels, spec_of(order, Layout.NCHW, (4, 4)))
    assert pixels.tobytes() == before


# From a file to pixels


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]  # each format has its own
    return path


@pytest.mark.parametrize("resize", list(Resize))
def test_an_image_of_the_size_is_not_resampled(tmp_path: Path, resize: Resize) -> None:
    pixels = noise(12, 7)
    path = save(Image.fromarray(pixels), tmp_path / "x.png")
    found = pixels_from_image(path, Preprocess(size=(12, 7), resize=resize))
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize(("height", "width"), [(5, 9), (40, 31), (12, 7), (7, 12), (1, 1)])
def test_exact_scales_both_sides(tmp_path: Path, height: int, width: int) -> None:
    image = Image.fromarray(noise(height, width))
    found = pixels_from_image(save(image, tmp_path / "x.png"), Preprocess(size=(12, 7)))
    expected = np.asarray(image.resize((7, 12), Image.Resampling.BILINEAR))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("source", "size", "scaled", "corner"),
    [  # (height, width) of each; corner is (top, left) of the crop
        ((20, 40), (10, 10), (10, 20), (0, 5)),
        ((40, 20), (10, 10), (20, 10), (5, 0)),
        ((30, 20), (16, 16), (24, 16), (4, 0)),
        ((31, 20), (10, 10), (16, 10), (3, 0)),  # 15.5 goes to 16
        ((20, 31), (10, 10), (10, 16), (0, 3)),
        ((5, 9), (20, 20), (20, 36), (0, 8)),
        ((9, 9), (6, 3), (6, 6), (0, 1)),
        ((10, 30), (10, 20), (10, 30), (0, 5)),
        ((100, 3), (8, 4), (133, 4), (62, 0)),
    ],
)
def test_shorter_then_crop_scales_the_shorter_side_and_crops_the_centre(
    tmp_path: Path,
    source: tuple[int, int],
    size: tuple[int, int],
    scaled: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    image = Image.fromarray(noise(*source))
    path = save(image, tmp_path / "x.png")
    found = pixels_from_image(path, Preprocess(size=size, resize=Resize.SHORTER_THEN_CROP))
    whole = np.asarray(image.resize((scaled[1], scaled[0]), Image.Resampling.BILINEAR))
    expected = whole[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    assert np.array_equal(found, expected)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(*[st.integers(1, 70)] * 2, *[st.integers(1, 24)] * 2)
def test_shorter_then_crop_always_fills_the_size(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, rows: int, columns: int
) -> None:
    path = save(
        Image.new("RGB", (width, height), (200, 100, 50)),
        tmp_path_factory.mktemp("image") / "x.bmp",
    )
    found = pixels_from_image(
        path, Preprocess(size=(rows, columns), resize=Resize.SHORTER_THEN_CROP)
    )
    assert found.shape == (rows, columns, 3)
    assert (found == (200, 100, 50)).all()  # no border is left unfilled


def test_downscaling_averages(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[::2] = 255  # without antialias it would be all or nothing
    path = save(Image.fromarray(pixels), tmp_path / "x.png")
    found = pixels_from_image(path, Preprocess(size=(8, 8)))[2:-2]
    assert np.abs(found.astype(int) - 127).max() <= 4, found[:, 0, 0]


@pytest.mark.parametrize("order", [ChannelOrder.RGB, GREY])
def test_a_grey_image_becomes_what_the_model_takes(tmp_path: Path, order: ChannelOrder) -> None:
    grey = noise(6, 5, 1)[:, :, 0]
    path = save(Image.fromarray(grey), tmp_path / "x.png")
    found = pixels_from_image(path, Preprocess(size=(6, 5), order=order))
    assert found.shape == (6, 5, 1 if order is GREY else 3)
    assert (found == grey[:, :, np.newaxis]).all()


def test_colour_becomes_grey_by_luma(tmp_path: Path) -> None:
    pixels = noise(6, 5)
    path = save(Image.fromarray(pixels), tmp_path / "x.png")
    found = pixels_from_image(path, Preprocess(size=(6, 5), order=GREY))[:, :, 0]
    luma = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    apart = np.abs(found - luma)
    assert apart.max() <= 1, np.unravel_index(apart.argmax(), apart.shape)


def test_bgr_reads_pixels_as_rgb(tmp_path: Path) -> None:
    pixels = noise(4, 4)
    path = save(Image.fromarray(pixels), tmp_path / "x.png")
    found = pixels_from_image(path, Preprocess(size=(4, 4), order=ChannelOrder.BGR))
    assert np.array_equal(found, pixels)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    pixels = noise(4, 4, 4)
    path = save(Image.fromarray(pixels), tmp_path / "x.png")
    assert np.array_equal(pixels_from_image(path, Preprocess(size=(4, 4))), pixels[:, :, :3])


def test_a_palette_is_resolved_before_resizing(tmp_path: Path) -> None:
    pixels = np.repeat(np.array([[(255, 0, 0), (0, 0, 255)]], np.uint8), 4, axis=1)
    path = save(Image.fromarray(pixels).quantize(2), tmp_path / "x.png")
    with Image.open(path) as image:
        assert image.mode == "P"
    found = pixels_from_image(path, Preprocess(size=(1, 4)))
    expected = Image.fromarray(pixels).resize((4, 1), Image.Resampling.BILINEAR)
    assert np.array_equal(found, np.asarray(expected))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = np.eye(4, dtype=bool)
    path = save(Image.fromarray(bits), tmp_path / "x.png")
    found = pixels_from_image(path, Preprocess(size=(4, 4), order=GREY))
    assert np.array_equal(found[:, :, 0], bits * np.uint8(255))


def test_a_cmyk_jpeg_is_converted(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow: red
    path = save(ink, tmp_path / "x.jpg", quality=95)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    found = pixels_from_image(path, Preprocess(size=(16, 16)))
    assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 8


def test_16_bit_colour_keeps_its_high_byte(tmp_path: Path) -> None:
    deep = (noise(3, 4).astype(np.uint16) << 8) + 77
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)  # PNG specification, 11.2.2
    path = tmp_path / "x.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert np.array_equal(pixels_from_image(path, Preprocess(size=(3, 4))), deep >> 8)


@pytest.mark.parametrize("order", [ChannelOrder.RGB, GREY])
@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".png", np.uint16), (".tiff", np.int32), (".tiff", np.float32)]
)
def test_grey_of_more_than_8_bits_is_refused_not_clipped(
    tmp_path: Path, suffix: str, dtype: type, order: ChannelOrder
) -> None:
    values: np.ndarray = (np.arange(64).reshape(8, 8) * 900).astype(dtype)
    path = save(Image.fromarray(values), tmp_path / f"x{suffix}")
    with pytest.raises(ConfigurationError, match="8 bits") as caught:
        pixels_from_image(path, Preprocess(size=(8, 8), order=order))
    assert caught.value.problems[0].where == str(path)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    image = Image.fromarray(noise(8, 16))
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    turned = save(image, tmp_path / "turned.png", exif=exif)
    with Image.open(turned) as read:
        assert read.getexif()[0x0112] == 6
    found = pixels_from_image(turned, Preprocess(size=(8, 16)))
    assert np.array_equal(found, np.asarray(image))


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    first, second = Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 200)
    path = save(first, tmp_path / "x.gif", save_all=True, append_images=[second])
    found = pixels_from_image(path, Preprocess(size=(4, 4), order=GREY))
    assert (found == 10).all()


# Refused


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_a_file_that_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be decoded") as caught:
        pixels_from_image(path, Preprocess(size=(4, 4)))
    assert caught.value.problems[0].where == str(path)
    assert caught.value.exit_code is ExitCode.CONFIGURATION


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "GIF"])
def test_a_truncated_image_is_refused(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(40, 40)).save(buffer, kind)
    path = tmp_path / "x"
    path.write_bytes(buffer.getvalue()[: buffer.tell() * 2 // 3])
    with pytest.raises(ConfigurationError, match="cannot be decoded"):
        pixels_from_image(path, Preprocess(size=(4, 4)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_damage_never_raises_anything_else(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 16)  # so that no damage makes it slow
    buffer = io.BytesIO()
    Image.fromarray(noise(9, 8)).save(buffer, kind)
    content = buffer.getvalue()
    path = tmp_path / "x"
    for position in range(min(len(content), 160)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            found = pixels_from_image(path, Preprocess(size=(4, 4)))
        except ConfigurationError:
            continue
        except Image.DecompressionBombWarning:
            continue
        assert found.shape == (4, 4, 3), position


def test_an_image_of_absurd_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.fromarray(noise(40, 40)), tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ConfigurationError, match="cannot be decoded"):
        pixels_from_image(path, Preprocess(size=(4, 4)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be decoded"):
        pixels_from_image(tmp_path / "gone.png", Preprocess(size=(4, 4)))
