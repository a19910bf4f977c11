from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeship.calibration.samples import LoadedSample, Sample
from edgeship.errors import ConfigurationError, ExitCode
from edgeship.evaluate.outputs import collect_outputs, read_outputs, require_labels, write_outputs


@dataclass(frozen=True)
class FakeSamples:
    """Samples with these labels; the input of sample i is i."""

    labels: Sequence[int | None]
    class_names: Sequence[str] = ()

    @property
    def samples(self) -> Sequence[Sample]:
        return [
            Sample(name=f"{index}", digest=f"{index}", label=label)
            for index, label in enumerate(self.labels)
        ]

    def load(self, index: int) -> LoadedSample:
        return LoadedSample(inputs={"x": np.full((1, 2), index, np.float32)}, pixels=None)


def labels_of(
    samples: FakeSamples, *, classes: int = 3, labels: tuple[str, ...] | None = None
) -> list[int]:
    return require_labels(samples, classes=classes, labels=labels, where="data/test")


def refusal_of(
    samples: FakeSamples, *, classes: int = 3, labels: tuple[str, ...] | None = None
) -> str:
    with pytest.raises(ConfigurationError) as caught:
        labels_of(samples, classes=classes, labels=labels)
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    (problem,) = caught.value.problems
    assert problem.where == "data/test"
    return str(problem)


# Outputs


def test_rows_are_in_the_order_of_the_samples_without_the_batch_axis() -> None:
    outputs = collect_outputs(
        FakeSamples([None] * 4),
        lambda inputs: {"y": np.stack([inputs["x"], -inputs["x"]], axis=1), "z": inputs["x"]},
        on_progress=lambda _done, _all: None,
    )
    assert outputs.dtype == np.float32
    assert outputs.tolist() == [[[i, i], [-i, -i]] for i in range(4)]


def test_progress_is_told_after_each_sample() -> None:
    told: list[tuple[int, int]] = []
    collect_outputs(
        FakeSamples([None] * 3),
        dict,
        on_progress=lambda done, whole: told.append((done, whole)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_outputs_come_back_bit_for_bit(tmp_path: Path) -> None:
    outputs = np.array([[np.nan, -0.0, 1e-45], [np.inf, 1.1, -3e38]], np.float32)
    write_outputs(tmp_path, outputs)
    found = read_outputs(tmp_path)
    assert found.dtype == np.float32
    assert found.tobytes() == outputs.tobytes()


def test_outputs_are_never_unpickled(tmp_path: Path) -> None:
    write_outputs(tmp_path, np.zeros((1, 1), np.float32))
    (file,) = tmp_path.iterdir()
    np.save(file, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_outputs(tmp_path)


# Labels


def test_labels_come_back_in_order() -> None:
    assert labels_of(FakeSamples([2, 0, 1, 0], ("a", "b", "c"))) == [2, 0, 1, 0]
    assert labels_of(FakeSamples([2, 0])) == [2, 0]


def test_samples_without_a_class_are_refused_with_their_number() -> None:
    assert "3 of 3 samples without one" in refusal_of(FakeSamples([None] * 3))
    assert "1 of 3 samples without one" in refusal_of(FakeSamples([0, None, 2]))


@pytest.mark.parametrize("label", [3, 1000, -1])
def test_a_class_that_the_model_has_no_score_for_is_refused(label: int) -> None:
    message = refusal_of(FakeSamples([0, label, 1]))
    assert "expected labels 0..2" in message
    assert str(label) in message


def test_more_class_folders_than_scores_are_refused_with_their_number() -> None:
    message = refusal_of(FakeSamples([0, 1], ("a", "b", "c", "d")))
    assert "expected labels 0..2, found labels 0..3" in message


def test_fewer_classes_than_scores_are_fine() -> None:
    assert labels_of(FakeSamples([0, 1], ("a", "b")), labels=("a", "b", "c")) == [0, 1]


@pytest.mark.parametrize("names", [("b", "a", "c"), ("a", "c"), ("b", "c")])
def test_class_folders_in_another_order_than_the_labels_are_refused(names: tuple[str, ...]) -> None:
    message = refusal_of(FakeSamples([0, 1], names), labels=("a", "b", "c"))
    assert "another order" in message
    assert f"expected a, b, c, found {', '.join(names)}" in message


@pytest.mark.parametrize("names", [("00", "01", "02"), ("a", "x", "c"), ()])
def test_class_folders_of_other_names_say_nothing_of_the_order(names: tuple[str, ...]) -> None:
    assert labels_of(FakeSamples([0, 1], names), labels=("a", "b", "c")) == [0, 1]
