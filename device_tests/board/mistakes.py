"""Mistakes: the ways in which people get preprocessing wrong, each as a changed recipe."""

from typing import Dict, List, Tuple

import numpy as np

from edgeship.device_tests.board.preprocess import Recipe

_OTHER_LAYOUT = {"NCHW": "NHWC", "NHWC": "NCHW"}

SCALINGS: Dict[str, Tuple[Tuple[float, ...], Tuple[float, ...]]] = {
    "values in 0..1, without mean and std": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "values in 0..255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "values in -1..1 (mean 0.5, std 0.5)": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "ImageNet's mean in 0..255, without std": (
        (123.675 / 255, 116.28 / 255, 103.53 / 255),
        (1 / 255, 1 / 255, 1 / 255),
    ),
}
"""Mean and std of published models: torchvision's (torchvision.models) and Keras's
(keras.applications.imagenet_utils, modes tf, torch and caffe)."""
_NEAR = 1e-3
"""Of a fitted mean or std: above what fitting loses, below what known ones differ by."""


def changed_recipes(recipe: Recipe) -> Dict[str, Recipe]:
    """The recipe with one mistake each, by what an input made so has."""
    found: Dict[str, Recipe] = {}
    channels = len(recipe.mean)
    if channels == 3:
        found["{} channels".format("RGB" if recipe.is_bgr else "BGR")] = recipe._replace(
            is_bgr=not recipe.is_bgr
        )
    if recipe.layout in _OTHER_LAYOUT:
        other = _OTHER_LAYOUT[recipe.layout]
        found["the layout " + other] = recipe._replace(layout=other)
        found[f"the values of {other} under the shape of {recipe.layout}"] = recipe._replace(
            is_reread=True
        )
    found["height and width swapped"] = recipe._replace(is_turned=True)
    for name, (mean, std) in SCALINGS.items():
        if not _is_near(recipe.mean, mean[:channels], recipe.std, std[:channels]):
            found[name] = recipe._replace(mean=mean[:channels], std=std[:channels])
    return found


def scaling_name(mean: Tuple[float, ...], std: Tuple[float, ...]) -> str:
    """What a mean and std that were found are known as."""
    for name, (known_mean, known_std) in SCALINGS.items():
        if _is_near(mean, known_mean[: len(mean)], std, known_std[: len(std)]):
            return name
    listed = [", ".join(f"{value:.4g}" for value in part) for part in (mean, std)]
    return "mean ({}) and std ({})".format(*listed)


def fitted_recipe(
    recipe: Recipe, pixels: List[np.ndarray], real_inputs: List[np.ndarray], tolerance: float
) -> Tuple[Recipe, bool]:
    """The mean and std that lead from pixels to inputs, and whether they lead there.

    Least squares over each channel of `input = (pixel / 255 - mean) / std`.

    Args:
        recipe: Its channel order, layout and turns are taken as they are.
        pixels: uint8[H, W, C] of each case.
        real_inputs: float64, dequantized, of the shapes that the recipe makes.
        tolerance: Largest difference of what fits, in units of the input; a value at the end of an
            integer's range does not count: it may have been cut off.
    """
    plain = recipe._replace(mean=(0.0,) * len(recipe.mean), std=(1.0,) * len(recipe.std))
    rows = [_by_channel(item, plain) for item in pixels]
    targets = [_inputs_by_channel(item, plain) for item in real_inputs]
    if any(row.shape != target.shape for row, target in zip(rows, targets)):
        return recipe, False
    x, y = np.concatenate(rows, axis=1), np.concatenate(targets, axis=1)
    lowest, highest = y.min(), y.max()
    means, stds = [], []
    for own, wanted in zip(x, y):
        inner = (wanted > lowest) & (wanted < highest)
        if inner.sum() < 3 or np.ptp(own[inner]) == 0:
            return recipe, False
        slope, offset = np.polyfit(own[inner], wanted[inner], 1)
        if slope <= 0:
            return recipe, False
        if np.abs(slope * own[inner] + offset - wanted[inner]).max() > tolerance:
            return recipe, False
        means.append(float(-offset / slope))
        stds.append(float(1 / slope))
    return recipe._replace(mean=tuple(means), std=tuple(stds)), True


def _by_channel(pixels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """float64[C, H * W] in 0..1, in the recipe's order."""
    if recipe.is_bgr:
        pixels = pixels[:, :, ::-1]
    if recipe.is_turned:
        pixels = pixels.transpose(1, 0, 2)
    rows: np.ndarray = pixels.reshape(-1, pixels.shape[2]).T.astype(np.float64) / 255
    return rows


def _inputs_by_channel(values: np.ndarray, recipe: Recipe) -> np.ndarray:
    """float64[C, H * W] of a batch of one, laid out as the recipe says."""
    image: np.ndarray = values[0]
    is_first = recipe.layout == "NCHW"
    if recipe.is_reread:  # the memory is the other layout's
        is_first = not is_first
        height_first = image.shape[1:] if recipe.layout == "NCHW" else image.shape[:2]
        channels = image.size // (height_first[0] * height_first[1])
        image = image.reshape((channels, -1) if is_first else (-1, channels))
    if is_first:
        rows: np.ndarray = image.reshape(image.shape[0], -1)
        return rows
    columns: np.ndarray = image.reshape(-1, image.shape[-1]).T
    return columns


def _is_near(
    mean: Tuple[float, ...],
    other_mean: Tuple[float, ...],
    std: Tuple[float, ...],
    other_std: Tuple[float, ...],
) -> bool:
    pairs = list(zip(mean, other_mean)) + list(zip(std, other_std))
    return all(abs(one - other) <= _NEAR * max(abs(other), 0.01) for one, other in pairs)
