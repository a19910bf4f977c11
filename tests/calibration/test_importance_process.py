import json
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.calibration.importance_file import read_importance
from edgeship.calibration.importance_forecast import forecast_importance
from edgeship.calibration.importance_process import importance_in_process
from edgeship.errors import ConfigurationError, ExportFailed, RequirementMissing
from edgeship.memory import available_bytes

models = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "tiny_text_models.py")))

TEXTS: Final = models.TEXT.splitlines()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = models.write_llama(tmp_path_factory.mktemp("llama"))
    return directory


# Forecast


def test_a_causal_models_weights_stay_in_their_file(llama: Path) -> None:
    forecast = forecast_importance(llama, 512)
    assert forecast.mapped == sum(2 * values.size for values in models.read_weights(llama).values())
    assert 400e6 < forecast.held < 900e6


def test_an_encoders_weights_are_held_as_float32(tmp_path: Path) -> None:
    models.write_bert(tmp_path)
    weights = sum(4 * values.size for values in models.read_weights(tmp_path).values())
    config = json.loads((tmp_path / "config.json").read_text())
    forecast = forecast_importance(tmp_path, 64)
    assert forecast.mapped == 0
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "architectures": ["LlamaForCausalLM"]})
    )
    causal = forecast_importance(tmp_path, 64)
    largest = max(values.size for values in models.read_weights(tmp_path).values())
    assert forecast.held - causal.held == weights - 2 * 4 * largest


def test_longer_sequences_take_more(llama: Path) -> None:
    assert forecast_importance(llama, 2048).held > forecast_importance(llama, 512).held + 50e6


def test_more_than_the_memory_is_refused_before_anything_starts(
    llama: Path, tmp_path: Path
) -> None:
    file = tmp_path / "importance.gguf"
    with pytest.raises(RequirementMissing, match=r"more memory than there is: .* found 1\.0 MB"):
        importance_in_process(llama, TEXTS, file, dataset="texts", memory_bytes=10**6)
    assert not file.exists()


def test_this_host_says_what_is_free() -> None:
    available = available_bytes()
    assert available is None or available > 1 << 20


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        importance_in_process(tmp_path, TEXTS, tmp_path / "importance.gguf", dataset="texts")


# The process


@pytest.mark.slow
def test_the_process_writes_the_table_of_the_texts(llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "importance.gguf"
    told: list[tuple[int, int]] = []
    done = importance_in_process(
        llama,
        TEXTS,
        file,
        dataset="texts",
        chunk_tokens=16,
        tokens=64,
        on_progress=lambda *counts: told.append(counts),
    )
    found = read_importance(file)
    assert (done.tokens, found.chunks, found.chunk_tokens) == (64, 4, 16)
    assert {sums.tokens for sums in found.entries.values()} == {64}
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert 100e6 < done.peak_bytes < done.forecast.held + done.forecast.mapped


@pytest.mark.slow
def test_an_error_of_the_process_is_raised_here(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="too little text") as caught:
        importance_in_process(llama, [], tmp_path / "importance.gguf", dataset="texts.txt")
    assert caught.value.problems[0].where == "texts.txt"
    with pytest.raises(ExportFailed, match="cannot be written"):
        importance_in_process(llama, TEXTS, tmp_path / "no" / "x.gguf", dataset="texts")


@pytest.mark.slow
def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    models.write_bert(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot load the tokenizer"):
        importance_in_process(tmp_path, TEXTS, tmp_path / "importance.gguf", dataset="texts")
