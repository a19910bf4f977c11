import weakref
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from edgeship.calibration import observe as module
from edgeship.calibration.observe import Statistics, channel_axis, observe, position_axis
from edgeship.errors import ConfigurationError

Inputs = Mapping[str, np.ndarray]


def run(inputs: Inputs) -> Inputs:
    """A net of one image and one scale, with tensors of every rank, an integer one among them."""
    image = inputs["image"]
    return {
        "half": image / np.float32(2),
        "pooled": image.mean(axis=(2, 3)),
        "tokens": image.reshape(1, 3, -1),
        "total": image.sum(),
        "row": image.reshape(-1),
        "answer": image.reshape(1, -1).argmax(axis=1),
    }


def samples(count: int) -> Iterator[tuple[str, Inputs]]:
    generator = np.random.default_rng(3)
    for index in range(count):
        image = generator.standard_normal((1, 3, 4, 5), dtype=np.float32)
        yield f"{index}.png", {"image": image, "ids": np.arange(4)}


def flatten(statistics: Statistics) -> dict[str, object]:
    return {
        f"{name}.{field}": value.tobytes() if isinstance(value, np.ndarray) else repr(value)
        for name, item in statistics.items()
        for field, value in vars(item).items()
    }


def test_every_float_tensor_is_observed_inputs_included() -> None:
    statistics = observe(samples(4), run)
    assert set(statistics) == {"image", "half", "pooled", "tokens", "total", "row"}
    counts = {name: item.count for name, item in statistics.items()}
    assert counts == dict(image=240, half=240, pooled=12, tokens=240, total=4, row=240)
    assert {item.samples for item in statistics.values()} == {4}


def test_extremes_are_those_of_all_samples() -> None:
    images = np.stack([inputs["image"] for _, inputs in samples(5)])
    statistics = observe(samples(5), run)
    assert statistics["image"].minimum == images.min()
    assert statistics["image"].maximum == images.max()
    expected = np.abs(images).max(axis=(0, 1, 3, 4))
    assert statistics["image"].channel_absmax.tolist() == expected.tolist()
    assert statistics["half"].absmax == statistics["image"].absmax / 2


@pytest.mark.parametrize(("rank", "axis"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 1), (5, 1)])
def test_channels_are_axis_1_of_images_and_else_the_last(rank: int, axis: int) -> None:
    assert channel_axis(rank) == axis


def test_channels_are_found_for_every_rank() -> None:
    statistics = observe(samples(2), run)
    channels = {name: len(item.channel_absmax) for name, item in statistics.items()}
    assert channels == dict(image=3, half=3, pooled=3, tokens=20, total=1, row=60)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((), None),
        ((128,), None),
        ((1, 384), None),
        ((128, 384), 0),
        ((1, 128, 384), 1),
        ((1, 1, 384), None),
        ((12, 128, 32), None),
        ((1, 12, 128, 32), None),
        ((1, 0, 4), None),
    ],
)
def test_positions_are_the_axis_before_the_features_of_one_sequence(
    shape: tuple[int, ...], axis: int | None
) -> None:
    assert position_axis(shape) == axis


def test_positions_are_observed_over_all_samples() -> None:
    images = np.stack([inputs["image"][0] for _, inputs in samples(3)])
    statistics = observe(samples(3), run)
    positions = {name: len(item.position_absmax) for name, item in statistics.items()}
    assert positions == dict(image=0, half=0, pooled=0, tokens=3, total=0, row=0)
    expected = np.abs(images).max(axis=(0, 2, 3))
    assert statistics["tokens"].position_absmax.tolist() == expected.tolist()


@pytest.mark.parametrize("stack_bytes", [1, 500, 1000, 1461, 5000])
def test_where_a_stack_ends_changes_nothing(
    stack_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = flatten(observe(samples(7), run))
    monkeypatch.setattr(module, "_STACK_BYTES", stack_bytes)
    assert flatten(observe(samples(7), run)) == whole


def test_samples_are_consumed_one_at_a_time() -> None:
    running: list[str] = []

    def feed() -> Iterator[tuple[str, Inputs]]:
        for name, inputs in samples(3):
            running.append(f"load {name}")
            yield name, inputs

    def record(inputs: Inputs) -> Inputs:
        running.append("run")
        return run(inputs)

    observe(feed(), record)
    assert running == ["load 0.png", "run", "load 1.png", "run", "load 2.png", "run"]


def test_memory_holds_one_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    born: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def count_alive(_: Inputs) -> Inputs:
        tensor = np.zeros((1, 256), np.float32)
        born.append(weakref.ref(tensor))
        alive.append(sum(item() is not None for item in born))
        return {"out": tensor}

    monkeypatch.setattr(module, "_STACK_BYTES", 3 * 1024)
    observe(((str(index), {}) for index in range(30)), count_alive)
    assert 3 <= max(alive[10:]) <= 4, (
        alive
    )  # a stack of three, and what its last sample still holds


def test_no_samples_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="the representative data is empty") as caught:
        observe(iter(()), run)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("stack_bytes", [1, 16 << 20])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_tensor_that_is_not_finite_is_refused_by_sample_and_name(
    bad: float, stack_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STACK_BYTES", stack_bytes)

    def spoil(inputs: Inputs) -> Inputs:
        tensors = dict(run(inputs))
        if inputs["image"][0, 0, 0, 0] == images[4]:
            tensors["pooled"] = tensors["pooled"].copy()
            tensors["pooled"][0, 1] = bad
        return tensors

    images = [inputs["image"][0, 0, 0, 0] for _, inputs in samples(7)]
    with pytest.raises(ConfigurationError) as caught:
        observe(samples(7), spoil)
    (problem,) = caught.value.problems
    assert problem.where == "calibration sample 4.png"
    assert "'pooled'" in problem.what
    assert problem.found == "1 of 3 values"


@pytest.mark.parametrize("mask", [np.float32(-3.4e38), np.float32(-np.inf)])
def test_a_mask_is_no_error(mask: np.float32) -> None:
    statistics = observe(samples(3), lambda _: {"mask": np.array([[0.0, mask]], np.float32)})
    assert statistics["mask"].sentinels == 3
    assert statistics["mask"].absmax == 0.0


def test_a_tensor_without_values_is_passed_over() -> None:
    statistics = observe(samples(2), lambda _: {"none": np.zeros((1, 0), np.float32)})
    assert "none" not in statistics or statistics["none"].is_empty
    assert statistics["image"].samples == 2
