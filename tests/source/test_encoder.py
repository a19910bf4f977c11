import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeship.errors import ConfigurationError
from edgeship.source.encoder import architecture_of, is_causal

WIDTH: Final = 4
CONFIG: Final = {
    "model_type": "bert",
    "vocab_size": 10,
    "hidden_size": WIDTH,
    "num_hidden_layers": 0,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 6,
    "layer_norm_eps": 1e-12,
}
TOKENS: Final = [[3, 1, 4, 1, 5, 9]]
MASK: Final = [[1, 1, 1, 1, 0, 0]]
LOAD: Final = f"""
import json, logging, sys, warnings
from pathlib import Path

import torch

from edgeship.source.encoder import load_encoder


class Records(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())


def settings():
    levels = [logging.getLogger(name).level for name in ("", "torch", "torchao")]
    return levels, [str(item) for item in warnings.filters]


heard = []
logging.getLogger().addHandler(Records())
logging.getLogger().addHandler(logging.lastResort)
before = settings()
module = load_encoder(Path(sys.argv[1]), None, ("input_ids", "attention_mask")).eval()
handlers = logging.getLogger("transformers").handlers
result = dict(
    heard=heard,
    are_restored=settings() == before,
    is_real_stderr=[handler.stream is sys.stderr for handler in handlers],
    level=logging.getLogger("transformers").level,
    outputs={{
        name: values.tolist()
        for name, values in module(torch.tensor({TOKENS}), torch.tensor({MASK})).items()
    }},
)
print(json.dumps(result))
"""


def write_config(directory: Path, **changes: object) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return directory


def embedding_weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    rows = {"word_embeddings": 10, "position_embeddings": 6, "token_type_embeddings": 2}
    weights = {
        f"embeddings.{name}.weight": generator.standard_normal((count, WIDTH)).astype(np.float32)
        for name, count in rows.items()
    }
    weights["embeddings.LayerNorm.weight"] = np.ones(WIDTH, np.float32)
    weights["embeddings.LayerNorm.bias"] = np.zeros(WIDTH, np.float32)
    return weights


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A process that loads a BERT of embeddings alone; its pooler has no weights in the file."""
    directory = write_config(tmp_path_factory.mktemp("encoder"), architectures=["BertModel"])
    save_file(embedding_weights(), directory / "model.safetensors", metadata={"format": "pt"})
    return subprocess.run(
        [sys.executable, "-c", LOAD, str(directory)], capture_output=True, text=True, check=False
    )


def report_of(loaded: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert loaded.returncode == 0, loaded.stderr
    report: dict[str, Any] = json.loads(loaded.stdout)
    return report


@pytest.mark.slow
def test_nothing_of_the_vendors_reaches_stderr(loaded: subprocess.CompletedProcess[str]) -> None:
    assert report_of(loaded)["heard"] == []
    assert loaded.stderr == ""


def test_loggers_and_filters_are_as_before(loaded: subprocess.CompletedProcess[str]) -> None:
    report = report_of(loaded)
    assert report["are_restored"]
    assert report["is_real_stderr"] == [True]
    assert report["level"] == 30  # transformers' own: WARNING


def test_tokens_become_the_mean_of_those_that_count(
    loaded: subprocess.CompletedProcess[str],
) -> None:
    words, positions, kinds = list(embedding_weights().values())[:3]
    total = (words[TOKENS[0]] + positions + kinds[0]).astype(np.float64)
    centred = total - total.mean(-1, keepdims=True)
    rows = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    ((name, found),) = report_of(loaded)["outputs"].items()
    assert name == "mean_pooled"
    # a few float32 roundings of values near 1
    np.testing.assert_allclose(found, [rows[np.array(MASK[0]) == 1].mean(0)], atol=2e-6)


@pytest.mark.parametrize(
    ("architecture", "expected"), [("LlamaForCausalLM", True), ("BertModel", False)]
)
def test_a_causal_model_is_known_by_its_class(
    tmp_path: Path, architecture: str, *, expected: bool
) -> None:
    directory = write_config(tmp_path, architectures=[architecture])
    assert architecture_of(directory) == architecture
    assert is_causal(directory) is expected


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"architectures": []}', '{"architectures": 3}'])
def test_a_directory_without_an_architecture_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigurationError, match="no Hugging Face model") as caught:
        architecture_of(tmp_path)
    assert caught.value.problems[0].where == str(tmp_path / "config.json")
