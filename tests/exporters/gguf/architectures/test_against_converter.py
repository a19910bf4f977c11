"""Every key and every tensor, against llama.cpp's own converter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeship.exporters.gguf.architectures import read_blueprint
from edgeship.exporters.gguf.blueprint import MetadataValue, ValueType

pytestmark = pytest.mark.slow

_DECODER = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
_CARD = """---
license: apache-2.0
language: [en, de]
base_model: [someone/Base-7B-v0.1]
datasets: [someone/Text-Set]
tags: [text-generation]
---
# A card
"""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Tiny-Llama-5M-Chat-v1.0": ("Llama", {"tie_word_embeddings": True}),
    "llama-llama3-scaling": ("Llama", {"head_dim": 48, "rope_parameters": _LLAMA3}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    "llama-not-causal": ("Llama", {"is_causal": False}),
    "mistral": ("Mistral", {"sliding_window": 128}),
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": {**_YARN, "beta_fast": 16, "beta_slow": 2}}),
    "qwen2-yarn-attention": ("Qwen2", {"rope_parameters": {**_YARN, "attention_factor": 1.5}}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "bert": ("Bert", {"num_labels": 3}),
    "bert-masked": ("Bert", {"class": "BertForMaskedLM"}),
}
_OLD_STYLE = {
    "llama-old-style": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "qwen2-old-style": ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 2.0}}),
}
"""As transformers 4 wrote it: made from a new one by renaming in `config.json`."""


def _build(directory: Path, family: str, changes: Mapping[str, Any]) -> None:
    import torch
    import transformers

    changed = {**_DECODER, **changes}
    if family == "Bert":
        del changed["num_key_value_heads"]
    kind = changed.pop("class", "BertModel" if family == "Bert" else f"{family}ForCausalLM")
    config = getattr(transformers, f"{family}Config")(**changed)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).to(torch.bfloat16)
    shards = {"max_shard_size": "100kB"} if family == "Qwen2" else {}
    model.save_pretrained(directory, **shards)


def _add_files(root: Path) -> None:
    """A card, sampling parameters, pooling: what the converter looks for beside the weights."""
    named = root / "Tiny-Llama-5M-Chat-v1.0"
    (named / "README.md").write_text(_CARD)
    sampling = {"temperature": 0.6, "top_p": 1, "top_k": 20, "repetition_penalty": 1.05}
    (named / "generation_config.json").write_text(json.dumps(sampling))
    for name, flag in (("bert", "pooling_mode_mean_tokens"), ("qwen3", "pooling_mode_lasttoken")):
        (root / name / "1_Pooling").mkdir()
        (root / name / "1_Pooling" / "config.json").write_text(json.dumps({flag: True}))
        modules = [
            {"path": "", "type": "x.Transformer"},
            {"path": "1_Pooling", "type": "x.Pooling"},
        ]
        (root / name / "modules.json").write_text(json.dumps(modules))


def _age(root: Path, name: str, family: str, changes: Mapping[str, Any]) -> None:
    source, directory = root / {"llama": "llama-biases", "qwen2": "qwen2"}[family], root / name
    directory.mkdir()
    for file in source.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    config = json.loads((directory / "config.json").read_text())
    parameters = config.pop("rope_parameters")
    config = {**config, **changes, "rope_theta": parameters["rope_theta"]}
    config.pop("head_dim", None)
    (directory / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, llama_cpp: Path) -> Path:
    root = tmp_path_factory.mktemp("converted")
    for name, (family, changes) in CASES.items():
        _build(root / name, family, changes)
    _add_files(root)
    for name, (family, changes) in _OLD_STYLE.items():
        _age(root, name, family, changes)
    driver = Path(__file__).with_name("convert_many.py")
    directories = [str(root / name) for name in (*CASES, *_OLD_STYLE)]
    command = [sys.executable, str(driver), str(llama_cpp), *directories]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", [*CASES, *_OLD_STYLE])
def test_keys_and_tensors_are_those_of_the_converter(converted: Path, name: str) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(converted / f"{name}.gguf")
    blueprint = read_blueprint(converted / name)
    expected = [
        (key, [int(kind) for kind in field.types], field.contents())
        for key, field in reader.fields.items()
        if not key.startswith(("GGUF.", "tokenizer."))
        and key not in ("general.quantization_version", "general.file_type")
    ]
    assert [_comparable(key, value) for key, value in blueprint.metadata] == expected
    assert {plan.name: plan.shape for plan in blueprint.tensors} == {
        tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors
    }


@pytest.mark.parametrize("name", list(CASES))
def test_tensors_hold_the_numbers_that_the_plan_says(converted: Path, name: str) -> None:
    from gguf import GGUFReader
    from safetensors.torch import load_file

    stored: dict[str, Any] = {}
    for file in (converted / name).glob("*.safetensors"):
        stored.update(load_file(file))
    found = {tensor.name: tensor.data for tensor in GGUFReader(converted / f"{name}.gguf").tensors}
    for plan in read_blueprint(converted / name).tensors:
        if plan.values is None:
            values = stored[plan.source].float().numpy()
        else:
            values = np.array(plan.values, np.float32)
        if plan.permuted_heads is not None:
            halves = values.reshape(plan.permuted_heads, 2, -1, *plan.shape[1:])
            values = halves.swapaxes(1, 2).reshape(plan.shape)
        np.testing.assert_array_equal(found[plan.name], values, err_msg=plan.name)


def _comparable(key: str, value: MetadataValue) -> tuple[str, list[int], Any]:
    """As the reader shows it: float32 widened, a list for an array."""
    if value.type is ValueType.ARRAY:
        assert value.item is not None
        assert isinstance(value.value, tuple)
        return key, [int(value.type), int(value.item)], list(value.value)
    if value.type is ValueType.FLOAT32:
        assert isinstance(value.value, (int, float))
        return key, [int(value.type)], float(np.float32(value.value))
    return key, [int(value.type)], value.value
