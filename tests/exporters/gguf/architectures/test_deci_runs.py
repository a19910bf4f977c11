"""Pruned checkpoints, as llama.cpp computes them, against torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeship.exporters.gguf.architectures import read_blueprint
from edgeship.exporters.gguf.blueprint import Blueprint, ValueType

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = pytest.mark.slow

_HIDDEN, _VOCABULARY, _HEAD_DIM, _TOKENS = 64, 96, 16, 24
_F32 = 0
"""GGML_TYPE_F32 of ggml.h."""
_CONFIG = {
    "vocab_size": _VOCABULARY,
    "hidden_size": _HIDDEN,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_Widths = Sequence[tuple[int, int, int]]
_UNEQUAL: _Widths = ((4, 2, 96), (2, 1, 64), (6, 3, 40))
_WITHOUT: _Widths = ((4, 2, 96), (0, 0, 64), (2, 2, 96), (0, 0, 32))
_ALIKE: _Widths = ((2, 2, 96), (2, 2, 96))


def _pruned(family: str, widths: _Widths, **changes: object) -> PreTrainedModel:
    """A model whose layers have (heads, kv heads, feed-forward) of their own."""
    import torch
    import transformers
    from torch import nn

    class NoAttention(nn.Module):
        def forward(self, hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
            return torch.zeros_like(hidden_states), None

    module = getattr(transformers.models, family.lower())
    modeling = getattr(module, f"modeling_{family.lower()}")
    config_class = getattr(transformers, f"{family}Config")
    torch.manual_seed(0)
    shared = {**_CONFIG, **changes, "num_hidden_layers": len(widths)}
    shared["attn_implementation"] = "eager"  # the one that takes its widths from the module
    model = getattr(transformers, f"{family}ForCausalLM")(config_class(**shared))
    for index, (heads, kv_heads, ffn) in enumerate(widths):
        own = {"num_attention_heads": heads or 1, "num_key_value_heads": kv_heads or 1}
        own |= {"hidden_size": _HIDDEN, "intermediate_size": ffn, "head_dim": _HEAD_DIM}
        config = config_class(**{**shared, **own, "hidden_size": _HIDDEN * (heads or 1)})
        config.hidden_size = _HIDDEN
        layer = model.model.layers[index]
        attention = getattr(modeling, f"{family}Attention")
        layer.self_attn = attention(config, index) if heads else NoAttention()
        layer.mlp = getattr(modeling, f"{family}MLP")(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 1.0, 0.2)
        else:
            nn.init.normal_(parameter, 0.0, 0.2)
    made: PreTrainedModel = model.eval()
    return made


def _write(blueprint: Blueprint, weights: dict[str, Any], file: Path) -> None:
    """The file in F32, without a vocabulary."""
    from gguf import GGUFValueType, GGUFWriter

    writer = GGUFWriter(file, blueprint.architecture)
    for key, value in blueprint.metadata:
        if key == "general.architecture":
            continue
        stored = list(value.value) if isinstance(value.value, tuple) else value.value
        item = None if value.item is None else GGUFValueType(int(value.item))
        writer.add_key_value(key, stored, GGUFValueType(int(value.type)), item)
    if not any(key.endswith(".vocab_size") for key, _ in blueprint.metadata):
        writer.add_vocab_size(_VOCABULARY)
    writer.add_tokenizer_model("none")
    for plan in blueprint.tensors:
        if plan.values is None:
            values = weights[plan.source].numpy()
        else:
            values = np.array(plan.values, np.float32)
        if plan.permuted_heads is not None:
            halves = values.reshape(plan.permuted_heads, 2, -1, *plan.shape[1:])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(plan.shape)
        writer.add_tensor(plan.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _both_logits(
    model: PreTrainedModel, directory: Path
) -> tuple[Blueprint, np.ndarray, np.ndarray]:
    """Blueprint, and float32[tokens, vocabulary] of torch and of llama.cpp."""
    import torch
    from llama_cpp import Llama
    from safetensors.torch import load_file

    model.save_pretrained(directory)
    blueprint = read_blueprint(directory)
    file = directory / "model.gguf"
    _write(blueprint, load_file(directory / "model.safetensors"), file)
    tokens = np.random.default_rng(0).integers(0, _VOCABULARY, _TOKENS).tolist()
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    llama = Llama(
        str(file),
        n_ctx=64,
        n_threads=1,
        logits_all=True,
        type_k=_F32,  # in half precision the cache would be the larger error
        type_v=_F32,
        verbose=False,
    )
    llama.eval(tokens)
    return blueprint, expected, np.array(llama.scores[:_TOKENS])


@pytest.mark.parametrize(
    ("family", "widths", "changes"),
    [
        ("Llama", _UNEQUAL, {"tie_word_embeddings": True}),
        ("Llama", _UNEQUAL, {"attention_bias": True, "mlp_bias": True}),
        ("Llama", _UNEQUAL, {"rope_parameters": _LLAMA3}),
        ("Llama", _WITHOUT, {}),
        ("Qwen2", _UNEQUAL, {}),
        ("Qwen2", _WITHOUT, {"tie_word_embeddings": True}),
        ("Qwen2", _ALIKE, {}),
    ],
)
def test_pruned_model_computes_what_torch_does(
    tmp_path: Path, family: str, widths: _Widths, changes: dict[str, Any]
) -> None:
    blueprint, expected, found = _both_logits(_pruned(family, widths, **changes), tmp_path / "net")
    assert blueprint.architecture == "deci"
    assert blueprint.facts.heads == tuple(heads for heads, _, _ in widths)
    worst = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
    # float32 sums in another order: 1e-3 of the spread of the logits
    assert abs(found[worst] - expected[worst]) < 1e-3 * expected.std(), worst
    assert (found.argmax(1) == expected.argmax(1)).all()


def test_uniformly_pruned_llama_with_a_stale_configuration_runs_as_llama(tmp_path: Path) -> None:
    model = _pruned("Llama", _ALIKE)
    blueprint, expected, found = _both_logits(model, tmp_path / "net")
    assert blueprint.architecture == "llama"
    assert blueprint.notes == (
        "config.json says num_attention_heads = 4, the tensors have 2: theirs were written",
    )
    assert dict(blueprint.metadata)["llama.attention.head_count"].value == 2
    assert dict(blueprint.metadata)["llama.feed_forward_length"].type is ValueType.UINT32
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.std())
