from __future__ import annotations

from pathlib import Path

import pytest

from edgeship.pipeline.choice import Loss, choose, read_choice


def loss(value: float) -> Loss:
    return Loss(value=value, count=40, measure="cosine distance", unit="texts")


@pytest.mark.parametrize(("weighted", "taken"), [(0.1, True), (0.2, False), (0.3, False)])
def test_the_file_with_the_smaller_loss_is_taken_and_both_are_said(
    tmp_path: Path, weighted: float, taken: bool
) -> None:
    told: list[tuple[int, int]] = []

    def measure(value: float) -> Loss:
        return loss(value)

    choose(
        lambda tell: (tell(2, 2), measure(0.2))[1],  # type: ignore[func-returns-value]
        lambda tell: (tell(1, 2), measure(weighted))[1],  # type: ignore[func-returns-value]
        tmp_path,
        lambda done, total: told.append((done, total)),
    )
    choice = read_choice(tmp_path)
    assert choice.takes_importance is taken
    assert told == [(2, 4), (3, 4)]
    note = choice.note()
    assert note.startswith("importance matrix taken:" if taken else "importance matrix not taken:")
    assert f"cosine distance {weighted:.5f} with it, 0.20000 without (40 texts" in note
