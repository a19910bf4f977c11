"""The speed stage: an integer file that is slower than float says why."""

from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.evaluate.speed import SpeedRatio
from edgeship.pipeline import speed

SLOWER: Final = SpeedRatio(
    ratio=5.6, spread=(5.5, 5.7), wall_ratio=5.6, one_ms=0.9, other_ms=0.2, rounds=41
)
FASTER: Final = SpeedRatio(
    ratio=0.5, spread=(0.4, 0.6), wall_ratio=0.5, one_ms=0.1, other_ms=0.2, rounds=41
)


@pytest.mark.parametrize(("ratio", "said"), [(SLOWER, "XNNPACK takes"), (FASTER, "")])
def test_only_a_slower_file_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ratio: SpeedRatio, said: str
) -> None:
    delegation = SimpleNamespace(outside={}, partitions=1)
    answers = {
        "read_payload": lambda _path: SimpleNamespace(contract=None),
        "model_file": lambda path, _payload: path / "model.tflite",
        "load_runtime": lambda _name: SimpleNamespace(open=lambda *_a, **_k: None),
        "encode_inputs": lambda *_arguments: {},
        "compare_speed": lambda *_runs: ratio,
        "examine_delegation": lambda _file: delegation,
        "fallen_out": lambda _one, _other: {"HARD_SWISH": 13},
        "check_delegates": lambda _file: SimpleNamespace(line="XNNPACK takes it in 14 parts"),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(speed, name, answer)
    data = SimpleNamespace(probes=lambda: [("x", SimpleNamespace(inputs={}))])
    lowered = SimpleNamespace(runtime="litert", file=tmp_path, contract=None)
    speed.measure_speed(lowered, tmp_path, (), data, tmp_path)  # type: ignore[arg-type]
    found = speed.read_speed(tmp_path)
    assert found.delegates.startswith(said)
    assert bool(found.delegates) == bool(said)
    assert found.outside_delegate == {"HARD_SWISH": 13}
