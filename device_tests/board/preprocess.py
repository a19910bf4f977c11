"""Preprocess: from raw pixels to an artifact's input, by the manifest or by a changed recipe."""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edgeship.device_tests.board.tensors import quantize

Recipe = NamedTuple(
    "Recipe",
    [
        ("is_bgr", bool),
        ("mean", Tuple[float, ...]),
        ("std", Tuple[float, ...]),
        ("layout", Optional[str]),
        ("is_reread", bool),
        ("is_turned", bool),
    ],
)
"""How pixels become an input: channel order; mean and std per channel in units of 0..1; layout,
None for one without; `is_reread` where the values lie in the other layout's order under this one's
shape; `is_turned` where height and width are swapped."""


def image_spec(inputs: List[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """The input that is an image; None where there is none."""
    return next((spec for spec in inputs if spec.get("preprocess") is not None), None)


def recipe_of(spec: Dict[str, Any]) -> Recipe:
    """The manifest's."""
    preprocess = spec["preprocess"]
    return Recipe(
        is_bgr=preprocess["order"] == "BGR",
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        layout=spec.get("layout"),
        is_reread=False,
        is_turned=False,
    )


def pixels_of(raw: np.ndarray, spec: Dict[str, Any]) -> np.ndarray:
    """uint8[H, W, C] of a case's raw bytes."""
    preprocess = spec["preprocess"]
    height, width = preprocess["size"]
    channels = 1 if preprocess["order"] == "GRAY" else 3
    return raw.reshape(height, width, channels)


def input_from_pixels(pixels: np.ndarray, spec: Dict[str, Any], recipe: Recipe) -> np.ndarray:
    """`((uint8 / 255) - mean) / std`, laid out, then quantized where the input is.

    Each of the three steps is rounded to float32, as edgeship.calibration.preprocess does.

    Args:
        pixels: uint8[H, W, C], channels RGB or one grey.
        spec: The input in the contract.
        recipe: See there.
    """
    if recipe.is_bgr:
        pixels = pixels[:, :, ::-1]
    if recipe.is_turned:
        pixels = pixels.transpose(1, 0, 2)
    mean = np.array(recipe.mean, np.float32)
    std = np.array(recipe.std, np.float32)
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    is_first = recipe.layout == "NCHW"
    if recipe.is_reread:
        shape = (values.shape[2], *values.shape[:2]) if is_first else values.shape
        values = values if is_first else values.transpose(2, 0, 1)
        values = np.ascontiguousarray(values).reshape(shape)
    elif is_first:
        values = values.transpose(2, 0, 1)
    batch = np.ascontiguousarray(values[np.newaxis])
    return batch if spec.get("scale") is None else quantize(batch, spec)
