import json
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgeship.errors import ConfigurationError
from edgeship.source.causal import load_causal, logit_blocks, torch_threads
from edgeship.source.wide_layers import WideEmbedding, WideLinear

models = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "tiny_text_models.py")))

IDS: Final = [1, 40, 263, 301, 17, 280, 99, 300, 265]
HEAD_DIM: Final = models.WIDTH // models.HEADS
Change = Callable[[dict[str, torch.Tensor]], None]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = models.write_llama(tmp_path_factory.mktemp("llama"))
    return directory


def changed(llama: Path, directory: Path, change: Change, **settings: object) -> Path:
    """A copy with other weights and settings."""
    directory.mkdir(exist_ok=True)
    config = json.loads((llama / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **settings}))
    tensors = load_file(llama / "model.safetensors")
    change(tensors)
    kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def transformers_logits(directory: Path) -> np.ndarray:
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([IDS])).logits[0].numpy()
    return logits


def our_logits(directory: Path) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = load_causal(directory)(torch.tensor([IDS]))["logits"][0].numpy()
    return logits


def unchanged(_: dict[str, torch.Tensor]) -> None: ...


# Logits


def test_logits_are_those_of_a_float32_copy(llama: Path) -> None:
    found = our_logits(llama)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, transformers_logits(llama))


def test_weights_stay_as_they_are_stored(llama: Path) -> None:
    module = load_causal(llama)
    dtypes = {parameter.dtype for parameter in module.parameters() if parameter.ndim == 2}
    assert dtypes == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training


def test_arguments_are_taken_in_the_order_of_the_inputs(llama: Path) -> None:
    ids, mask = torch.tensor([[*IDS, 0, 0]]), torch.tensor([[1] * len(IDS) + [0, 0]])
    module = load_causal(llama, ("attention_mask", "input_ids"))
    with torch.no_grad():
        ((name, logits),) = module(mask, ids).items()
    assert name == "logits"
    np.testing.assert_allclose(logits[0, : len(IDS)], our_logits(llama), atol=1e-5)


def test_blocks_are_the_logits_and_keep_the_threads(llama: Path) -> None:
    with torch_threads(3):
        found = np.concatenate(list(logit_blocks(load_causal(llama), IDS)))
        assert torch.get_num_threads() == 3
    np.testing.assert_allclose(found, our_logits(llama), atol=1e-5)


def test_a_tied_head_is_the_embedding(llama: Path, tmp_path: Path) -> None:
    def without_head(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["lm_head.weight"]

    directory = changed(llama, tmp_path, without_head, tie_word_embeddings=True)
    np.testing.assert_array_equal(our_logits(directory), transformers_logits(directory))


def test_shards_are_put_together(llama: Path, tmp_path: Path) -> None:
    directory = changed(llama, tmp_path, unchanged)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, directory / f"{number}.safetensors")
        weight_map |= dict.fromkeys(part, f"{number}.safetensors")
    index = json.dumps({"weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(index)
    np.testing.assert_array_equal(our_logits(directory), our_logits(llama))


# Pruned: the same as a whole model whose removed parts are zero


def removed_ffn(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("gate_proj", "up_proj"):
        key = f"model.layers.1.mlp.{name}.weight"
        tensors[key] = tensors[key][:40]
    key = "model.layers.1.mlp.down_proj.weight"
    tensors[key] = tensors[key][:, :40]


def zeroed_ffn(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.down_proj.weight"][:, 40:] = 0


def removed_heads(tensors: dict[str, torch.Tensor]) -> None:
    """The second of the two key heads, and the two query heads that look at it."""
    prefix = "model.layers.0.self_attn"
    for name, heads in (("q_proj", 2), ("k_proj", 1), ("v_proj", 1)):
        key = f"{prefix}.{name}.weight"
        tensors[key] = tensors[key][: heads * HEAD_DIM]
    key = f"{prefix}.o_proj.weight"
    tensors[key] = tensors[key][:, : 2 * HEAD_DIM]


def zeroed_heads(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.o_proj.weight"][:, 2 * HEAD_DIM :] = 0


def removed_attention(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        if name.startswith(("model.layers.1.self_attn.", "model.layers.1.input_layernorm.")):
            del tensors[name]


def zeroed_attention(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.self_attn.o_proj.weight"].zero_()


def removed_mlp(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        if name.startswith(("model.layers.0.mlp.", "model.layers.0.post_attention_layernorm.")):
            del tensors[name]


def zeroed_mlp(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.mlp.down_proj.weight"].zero_()


@pytest.mark.parametrize(
    ("remove", "zero"),
    [
        (removed_ffn, zeroed_ffn),
        (removed_heads, zeroed_heads),
        (removed_attention, zeroed_attention),
        (removed_mlp, zeroed_mlp),
    ],
)
def test_a_pruned_layer_is_one_with_zeros(
    llama: Path, tmp_path: Path, remove: Change, zero: Change
) -> None:
    pruned = changed(llama, tmp_path / "pruned", remove, head_dim=HEAD_DIM)
    whole = changed(llama, tmp_path / "whole", zero)
    wanted = transformers_logits(whole)
    # sums of fewer float32 products
    np.testing.assert_allclose(our_logits(pruned), wanted, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(wanted - our_logits(llama)).max() > 0.1  # what was removed did something


# Refusals


def test_each_missing_weight_is_named(llama: Path, tmp_path: Path) -> None:
    def without(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.norm.weight"]
        del tensors["model.layers.0.self_attn.k_proj.weight"]

    with pytest.raises(ConfigurationError) as caught:
        load_causal(changed(llama, tmp_path, without))
    wheres = [problem.where for problem in caught.value.problems]
    names = ["model.layers.0.self_attn.k_proj.weight", "model.norm.weight"]
    assert wheres == [f"{tmp_path}: {name}" for name in names]


def test_a_norm_of_another_width_is_refused(llama: Path, tmp_path: Path) -> None:
    def shorter(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1]

    with pytest.raises(ConfigurationError, match=r"a tensor \[64\], found \[63\]"):
        load_causal(changed(llama, tmp_path, shorter))


def test_an_unknown_architecture_is_refused(llama: Path, tmp_path: Path) -> None:
    directory = changed(
        llama, tmp_path, unchanged, model_type="nonesuch", architectures=["NonesuchForCausalLM"]
    )
    with pytest.raises(ConfigurationError, match="cannot build NonesuchForCausalLM"):
        load_causal(directory)


def test_weights_that_are_no_safetensors_are_refused(llama: Path, tmp_path: Path) -> None:
    directory = changed(llama, tmp_path, unchanged)
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="not in safetensors"):
        load_causal(directory)


# Wide layers


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_larger_than_a_block_is_the_float32_one(*, has_bias: bool) -> None:
    torch.manual_seed(0)
    wide = WideLinear(8192, 2100, has_bias).to(torch.bfloat16)  # 64 MiB hold 2048 rows
    if has_bias:
        wide.bias = nn.Parameter(wide.bias.float())
    plain = nn.Linear(8192, 2100, has_bias)
    plain.load_state_dict(wide.state_dict())
    inputs = torch.randn(2, 3, 8192)
    with torch.no_grad():
        torch.testing.assert_close(wide(inputs), plain(inputs), atol=1e-5, rtol=1e-5)


def test_an_embedding_is_widened_as_it_is_looked_up() -> None:
    wide = WideEmbedding(5, 3).to(torch.float16)
    found = wide(torch.tensor([[4, 0]]))
    assert found.dtype == torch.float32
    assert torch.equal(found[0], wide.weight[[4, 0]].float())
