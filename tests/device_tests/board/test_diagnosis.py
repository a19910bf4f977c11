from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest

from edgeship.vocabulary import ChannelOrder, Layout


def as_fed(
    packs: SimpleNamespace, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """A file that was trained on inputs that are made otherwise than the golden ones."""

    def answer(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = packs.linear({"image": change(inputs["image"])})
        return found

    return answer


MEAN, STD = (0.41, 0.47, 0.53), (0.21, 0.26, 0.31)
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
BYTES = (1 / 255, 1 / 255, 1 / 255)
HALF = (0.5, 0.5, 0.5)


MISTAKES: Final[list[tuple[dict[str, Any], str]]] = [
    ({"order": ChannelOrder.BGR}, "BGR channels"),
    ({"mean": ZERO, "std": ONE}, "values in 0..1, without mean and std"),
    ({"mean": ZERO, "std": BYTES}, "values in 0..255"),
    ({"mean": HALF, "std": HALF}, "values in -1..1 (mean 0.5, std 0.5)"),
    ({"mean": (0.485, 0.456, 0.406)}, "mean (0.485, 0.456, 0.406) and std (0.21, 0.26, 0.31)"),
    ({"std": (0.11, 0.12, 0.13)}, "mean (0.41, 0.47, 0.53) and std (0.11, 0.12, 0.13)"),
    (
        {"order": ChannelOrder.BGR, "mean": HALF, "std": HALF},
        "BGR channels and values in -1..1 (mean 0.5, std 0.5)",
    ),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
@pytest.mark.parametrize("layout", [Layout.NCHW, Layout.NHWC])
def test_golden_inputs_that_were_made_otherwise_are_named(
    tmp_path: Path,
    packs: SimpleNamespace,
    mistake: dict[str, Any],
    words: str,
    layout: Layout,
) -> None:
    given, claimed = packs.image_spec(layout, **mistake), packs.image_spec(layout)
    ended, _ = packs.smoked(packs.image_artifact(tmp_path / "a", given, claimed=claimed))
    assert ended["outcome"] == "mismatch"
    assert "against preprocessing" in ended["message"]
    expected = f"RGB, {layout}, mean (0.41, 0.47, 0.53) and std (0.21, 0.26, 0.31)"
    assert ended["diagnosis"] == (
        f"the golden inputs were made with {words}, and the manifest says {expected}"
    )


@pytest.mark.parametrize(
    ("mistake", "words"), [row for row in MISTAKES if row[0].get("std") != BYTES]
)  # integers of one scale cannot hold both 0..1 and 0..255
def test_quantized_golden_inputs_tell_the_mistake_too(
    tmp_path: Path, packs: SimpleNamespace, mistake: dict[str, Any], words: str
) -> None:
    specs = packs.image_spec(Layout.NHWC, **mistake), packs.image_spec(Layout.NHWC)
    given, claimed = (packs.integers(spec, 3 * 5.0 / 255, -11) for spec in specs)
    ended, _ = packs.smoked(packs.image_artifact(tmp_path / "a", given, claimed=claimed))
    # a mean and std that nobody publishes are found to a fraction of a step
    known = words if "and std (" not in words else "mean ("
    assert str(ended["diagnosis"]).startswith(f"the golden inputs were made with {known}")


def test_golden_inputs_in_the_other_layout_are_named(
    tmp_path: Path, packs: SimpleNamespace
) -> None:
    given, claimed = packs.image_spec(Layout.NHWC), packs.image_spec(Layout.NCHW)
    ended, _ = packs.smoked(packs.image_artifact(tmp_path / "a", given, claimed=claimed))
    assert str(ended["diagnosis"]).startswith("the golden inputs were made with the layout NHWC,")


def reread(image: np.ndarray) -> np.ndarray:
    """The values in NHWC order, under the shape of NCHW."""
    return np.ascontiguousarray(image.transpose(0, 2, 3, 1)).reshape(image.shape)


def rescaled(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """From the manifest's mean and std to these, in NCHW."""

    def change(image: np.ndarray) -> np.ndarray:
        own, other = (np.reshape(part, (1, 3, 1, 1)) for part in (MEAN, STD))
        raw = image * other + own
        new: np.ndarray = (raw - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
        return new.astype(np.float32)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image_bgr(image), "BGR channels"),
        (rescaled(ZERO, ONE), "values in 0..1, without mean and std"),
        (rescaled(ZERO, BYTES), "values in 0..255"),
        (rescaled(HALF, HALF), "values in -1..1 (mean 0.5, std 0.5)"),
        (rescaled((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "ImageNet's mean and std"),
        (reread, "the values of NHWC under the shape of NCHW"),
        (lambda image: image.transpose(0, 1, 3, 2), "height and width swapped"),
    ],
)
def test_a_file_that_takes_other_inputs_than_the_manifest_says_is_found_out(
    tmp_path: Path,
    packs: SimpleNamespace,
    change: Callable[[np.ndarray], np.ndarray],
    words: str,
) -> None:
    answer = as_fed(packs, change)
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec(), answer=answer)
    ended, _ = packs.smoked(artifact)
    assert ended["outcome"] == "mismatch"
    assert str(ended["diagnosis"]).startswith(f"most likely the file takes {words}, and is given")


def image_bgr(image: np.ndarray) -> np.ndarray:
    """Channels reversed before mean and std, which stay where they are; NCHW."""
    mean, std = (np.reshape(part, (1, 3, 1, 1)).astype(np.float64) for part in (MEAN, STD))
    raw = image * std + mean
    swapped: np.ndarray = (raw[:, ::-1] - mean) / std
    return swapped.astype(np.float32)


def test_inputs_in_the_wrong_order_are_named(tmp_path: Path, packs: SimpleNamespace) -> None:
    generator = np.random.default_rng(3)
    samples = [
        {name: generator.standard_normal((1, 4)).astype(np.float32) for name in ("left", "right")}
        for _ in range(2)
    ]

    def swapped(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = packs.weighted(
            {"left": inputs["right"], "right": inputs["left"]}
        )
        return found

    ended, _ = packs.smoked(packs.array_artifact(tmp_path / "a", samples, swapped))
    assert ended["diagnosis"] == (
        "most likely the inputs are in another order (right as left, left as right): with that, "
        "the outputs are the expected ones"
    )


def test_nothing_is_claimed_where_nothing_fits(tmp_path: Path, packs: SimpleNamespace) -> None:
    artifact = packs.image_artifact(
        tmp_path / "a", packs.image_spec(), answer=as_fed(packs, np.tanh)
    )
    ended, _ = packs.smoked(artifact)
    assert (ended["outcome"], ended["diagnosis"]) == ("mismatch", None)


def test_nothing_is_claimed_where_several_fit(tmp_path: Path, packs: SimpleNamespace) -> None:
    """Two of three inputs are equal: each of two orders gives the outputs."""
    one, same = np.full((1, 4), 2, np.float32), np.ones((1, 4), np.float32)

    def swapped(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = packs.weighted(
            {"a": inputs["b"], "b": inputs["a"], "c": inputs["c"]}
        )
        return found

    samples = [{"a": one, "b": same, "c": same}]
    ended, _ = packs.smoked(packs.array_artifact(tmp_path / "a", samples, swapped))
    assert (ended["outcome"], ended["diagnosis"]) == ("mismatch", None)
