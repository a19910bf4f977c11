from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
import torch

from edgeship.calibration.importance import Importance, observe_importance
from edgeship.errors import ConfigurationError
from edgeship.source.causal import load_causal
from edgeship.source.encoder import load_encoder
from edgeship.vocabulary import Output

models = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "tiny_text_models.py")))

CHUNKS: Final = [[1, 40, 263, 301, 17], [1, 280, 99, 300]]
OF_A_LAYER: Final = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = models.write_llama(tmp_path_factory.mktemp("llama"))
    return directory


def load(directory: Path) -> Any:  # noqa: ANN401 - transformers' own class
    wrapper: Any = load_causal(directory)
    return wrapper.model


def observed(model: Any, chunks: list[list[int]] | None = None) -> Importance:  # noqa: ANN401 - likewise
    return observe_importance(model, CHUNKS if chunks is None else chunks, dataset="texts")


def normed(rows: np.ndarray) -> np.ndarray:
    """RMSNorm whose weights are one, as they are before training."""
    normed: np.ndarray = rows / np.sqrt((rows**2).mean(1, keepdims=True) + 1e-6)
    return normed


# Llama


@pytest.mark.slow
def test_every_weight_of_every_block_has_an_entry(directory: Path) -> None:
    found = observed(load(directory))
    names = {f"blk.{layer}.{name}.weight" for layer in range(models.LAYERS) for name in OF_A_LAYER}
    assert set(found.entries) == names
    assert {sums.tokens for sums in found.entries.values()} == {9}
    assert (found.chunks, found.chunk_tokens, found.dataset) == (2, 5, "texts")


def test_sums_are_the_squares_of_what_enters_a_layer(directory: Path) -> None:
    ids = [token for chunk in CHUNKS for token in chunk]
    embedding = models.read_weights(directory)["model.embed_tokens.weight"]
    wanted = (normed(embedding[ids].astype(np.float64)) ** 2).sum(0)
    found = observed(load(directory)).entries
    for name in ("attn_q", "attn_k", "attn_v"):
        squares = found[f"blk.0.{name}.weight"].squares
        assert squares.dtype == np.float64
        np.testing.assert_allclose(squares, wanted, rtol=1e-5)  # float32 norms


def test_the_inner_width_is_that_of_the_gated_product(directory: Path) -> None:
    model = load(directory)
    entered: list[torch.Tensor] = []
    hook = model.model.layers[1].post_attention_layernorm.register_forward_hook(
        lambda _module, _inputs, output: entered.append(output[0])
    )
    found = observed(model).entries["blk.1.ffn_down.weight"].squares
    hook.remove()
    weights = models.read_weights(directory)
    rows = torch.cat(entered).double().numpy()
    gate, up = (
        rows @ weights[f"model.layers.1.mlp.{name}_proj.weight"].T for name in ("gate", "up")
    )
    wanted = ((gate / (1 + np.exp(-gate)) * up) ** 2).sum(0)
    assert wanted.shape == (models.FFN,)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_sequences_add_up(directory: Path) -> None:
    model = load(directory)
    both, first, second = (
        observed(model, part).entries for part in (CHUNKS, CHUNKS[:1], CHUNKS[1:])
    )
    for name, sums in both.items():
        np.testing.assert_array_equal(sums.squares, first[name].squares + second[name].squares)


def test_hooks_are_gone_afterwards(directory: Path) -> None:
    model = load(directory)
    observed(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_means_are_float32_quotients(directory: Path) -> None:
    sums = next(iter(observed(load(directory)).entries.values()))
    wanted = np.array([np.float32(value) / np.float32(9) for value in sums.squares])
    assert sums.means().dtype == np.float32
    np.testing.assert_array_equal(sums.means(), wanted)


def test_progress_counts_sequences(directory: Path) -> None:
    told: list[tuple[int, int]] = []
    observe_importance(
        load(directory),
        CHUNKS,
        dataset="",
        on_progress=lambda done, count: told.append((done, count)),
    )
    assert told == [(1, 2), (2, 2)]


# What can be wrong


def test_dead_channels_are_told(directory: Path) -> None:
    model = load(directory)
    model.model.layers[1].input_layernorm.weight.data[:3] = 0
    model.model.layers[0].post_attention_layernorm.weight.data[7] = 0
    found = observed(model)
    assert {name: sums.dead for name, sums in found.entries.items() if sums.dead} == {
        "blk.1.attn_q.weight": 3,
        "blk.1.attn_k.weight": 3,
        "blk.1.attn_v.weight": 3,
        "blk.0.ffn_gate.weight": 1,
        "blk.0.ffn_up.weight": 1,
    }
    (note,) = found.notes()
    assert "11 input channels of 5 weights" in note
    assert "with 3 of 64" in note
    assert observed(load(directory)).notes() == []


def test_a_weight_that_sees_nothing_but_zeros_has_no_entry(directory: Path) -> None:
    model = load(directory)
    model.model.layers[1].post_attention_layernorm.weight.data[:] = 0
    missing = set(observed(load(directory)).entries) - set(observed(model).entries)
    assert missing == {f"blk.1.ffn_{name}.weight" for name in ("gate", "up", "down")}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused_with_the_first_layer_that_sees_it(directory: Path, bad: float) -> None:
    model = load(directory)
    model.model.layers[1].input_layernorm.weight.data[5] = bad
    with pytest.raises(ConfigurationError, match="1 of 64 channels") as caught:
        observed(model)
    assert caught.value.problems[0].where == "layers.1.self_attn.q_proj"


def test_large_activations_do_not_overflow(directory: Path) -> None:
    model = load(directory)
    attention = model.model.layers[0].self_attn
    attention.v_proj.weight.data *= 1e20
    attention.o_proj.weight.data *= 1e-20
    squares = observed(model).entries["blk.0.attn_output.weight"].squares
    assert np.isfinite(squares).all()
    assert squares.max() > np.finfo(np.float32).max


def test_an_architecture_without_names_is_refused(directory: Path) -> None:
    model = load(directory)
    model.config.model_type = "nonesuch"
    with pytest.raises(ConfigurationError, match="nonesuch: the names of its layers in GGUF"):
        observed(model)


# BERT


def test_an_encoder_has_entries_for_its_blocks(tmp_path: Path) -> None:
    models.write_bert(tmp_path)
    wrapper: Any = load_encoder(tmp_path, Output.LAST_HIDDEN_STATE, ("input_ids",)).eval()
    found = observed(wrapper.model, [[2, 4, 5, 3], [2, 6, 3]])
    of_a_layer = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"}
    names = {f"blk.{layer}.{name}.weight" for layer in range(models.LAYERS) for name in of_a_layer}
    assert set(found.entries) == names
    assert {sums.tokens for sums in found.entries.values()} == {7}
