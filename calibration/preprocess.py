"""From an image file to a model's input: the one implementation that everything uses."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgeship.contract import Preprocess, TensorSpec
from edgeship.errors import ConfigurationError, Problem
from edgeship.vocabulary import ChannelOrder, Layout, Resize

_UNDECODABLE: Final = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
)


def pixels_from_image(path: Path, preprocess: Preprocess) -> np.ndarray:
    """Decode, convert and resize an image: uint8[H, W, C], channels RGB or one grey.

    Resizing is Pillow's bilinear with antialias. EXIF orientation is not applied, as Pillow's
    `Image.open` does not. An image that has the size already is not resampled.

    Raises:
        ConfigurationError: The file is no image, is cut short, or is grey of more than 8 bits.
    """
    mode = "L" if preprocess.order is ChannelOrder.GRAY else "RGB"
    try:
        with Image.open(path) as image:
            _require_8_bits(image)
            resized = _resize(image.convert(mode), preprocess)
    except _UNDECODABLE as error:
        problem = Problem(
            where=str(path),
            what="the image cannot be decoded",
            found=str(error),
            remedy="remove the file, or save it again",
        )
        raise ConfigurationError(problem) from error
    pixels = np.asarray(resized, dtype=np.uint8)
    return pixels[:, :, np.newaxis] if mode == "L" else pixels


def input_from_pixels(pixels: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """`((uint8 / 255) - mean) / std` in the model's layout: float32[1, ...], C-contiguous.

    Each of the three steps is rounded to float32, so that a board's runner can repeat it exactly.

    Args:
        pixels: uint8[H, W, C], channels RGB or one grey.
        spec: An input with `preprocess` and `layout`.
    """
    preprocess = spec.preprocess
    assert preprocess is not None  # only image inputs come here
    if preprocess.order is ChannelOrder.BGR:
        pixels = pixels[:, :, ::-1]
    mean = np.array(preprocess.mean, np.float32)
    std = np.array(preprocess.std, np.float32)
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    if spec.layout is Layout.NCHW:
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[np.newaxis])


def _require_8_bits(image: Image.Image) -> None:
    """Pillow's conversion from I;16, I and F clips at 255: nearly all of the image is white."""
    if image.mode.startswith(("I", "F")):
        message = f"mode {image.mode}: grey of more than 8 bits"
        raise ValueError(message)


def _resize(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    height, width = preprocess.size
    if image.size == (width, height):
        return image
    if preprocess.resize is Resize.EXACT:
        return image.resize((width, height), Image.Resampling.BILINEAR)
    scale = max(width / image.width, height / image.height)
    scaled = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    return image.crop((left, top, left + width, top + height))
