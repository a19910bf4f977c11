from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.exporters.gguf.architectures import read_blueprint

if TYPE_CHECKING:
    from tests.exporters.gguf.architectures.conftest import Small


def test_names_shapes_and_sources_of_a_tied_llama(small: Small) -> None:
    blueprint = read_blueprint(small.write(small.config(), small.shapes()))
    plans = {plan.name: plan for plan in blueprint.tensors}
    assert blueprint.architecture == "llama"
    assert len(plans) == 2 + 2 * 9
    assert plans["blk.1.attn_k.weight"].source == "model.layers.1.self_attn.k_proj.weight"
    assert plans["blk.1.attn_k.weight"].shape == (32, 64)
    assert plans["blk.1.attn_k.weight"].permuted_heads == 2
    assert plans["blk.0.attn_q.weight"].permuted_heads == 4
    assert plans["blk.0.attn_v.weight"].permuted_heads is None
    assert blueprint.facts.ties_embeddings
    assert blueprint.notes == ()


def test_architecture_keys_are_in_the_order_of_the_converter(small: Small) -> None:
    metadata = read_blueprint(small.write(small.config(), small.shapes())).metadata
    own = [(key.removeprefix("llama."), value.value) for key, value in metadata if "llama." in key]
    assert own == [
        ("block_count", 2),
        ("context_length", 512),
        ("embedding_length", 64),
        ("feed_forward_length", 96),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("rope.freq_base", 10000.0),
        ("attention.layer_norm_rms_epsilon", 1e-5),
        ("attention.key_length", 16),
        ("attention.value_length", 16),
        ("vocab_size", 96),
        ("rope.dimension_count", 16),
    ]


def test_stored_head_of_a_tied_model_is_left_out_and_told(small: Small) -> None:
    blueprint = read_blueprint(small.write(small.config(), small.shapes(head=True)))
    assert "output.weight" not in [plan.name for plan in blueprint.tensors]
    assert any("lm_head.weight is left out" in note for note in blueprint.notes)


def test_head_of_an_untied_model_is_needed(small: Small) -> None:
    config = small.config(tie_word_embeddings=False)
    with pytest.raises(ConfigurationError, match=r"model.safetensors: lm_head.weight: .*missing"):
        read_blueprint(small.write(config, small.shapes()))
    whole = small.write(config, small.shapes(head=True), name="whole")
    assert "output.weight" in [plan.name for plan in read_blueprint(whole).tensors]


def test_base_model_has_names_without_prefix(small: Small) -> None:
    config = small.config(architectures=["LlamaModel"], tie_word_embeddings=None)
    blueprint = read_blueprint(small.write(config, small.shapes(prefix="")))
    assert blueprint.tensors[0].source == "embed_tokens.weight"
    assert any("no head" in note for note in blueprint.notes)


def test_shards_are_read_together(small: Small) -> None:
    shapes = small.shapes()
    names = list(shapes)
    halves = [{name: shapes[name] for name in part} for part in (names[:7], names[7:])]
    blueprint = read_blueprint(small.write(small.config(), *halves))
    assert [plan.source for plan in blueprint.tensors] == names


@pytest.mark.parametrize("architectures", [["GemmaForCausalLM"], [], None])
def test_unknown_architecture_names_the_known_ones_and_the_way_round(
    small: Small, architectures: list[str] | None
) -> None:
    directory = small.write(small.config(architectures=architectures), small.shapes())
    (directory / "model.safetensors").unlink()  # it is told before any weights are opened
    with pytest.raises(ExportFailed, match="architectures: this architecture") as caught:
        read_blueprint(directory)
    text = str(caught.value)
    assert "LlamaForCausalLM" in text
    assert "BertModel" in text
    assert 'converter = "PATH/convert_hf_to_gguf.py"' in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_local_experts": 8}, "num_local_experts: the checkpoint is a mixture of experts"),
        ({"quantization_config": {"bits": 4}}, "the checkpoint is quantized already"),
        ({"draft_vocab_size": 96}, "a draft model"),
        ({"hidden_act": "gelu"}, "llama.cpp computes silu here, the checkpoint .* gelu"),
    ],
)
def test_other_models_of_a_known_name_are_refused(
    small: Small, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportFailed, match=message):
        read_blueprint(small.write(small.config(**changes), small.shapes()))


def test_index_that_lists_a_tensor_elsewhere_is_refused(small: Small) -> None:
    shapes = small.shapes()
    norm = {"model.norm.weight": shapes.pop("model.norm.weight")}
    directory = small.write(small.config(), shapes, norm)
    index = directory / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(table))
    with pytest.raises(ConfigurationError, match=r"00001.*model.norm.weight.*not in its shard"):
        read_blueprint(directory)


def test_tensor_that_no_index_lists_is_refused(small: Small) -> None:
    shapes = small.shapes()
    norm = {"model.norm.weight": shapes["model.norm.weight"]}
    directory = small.write(small.config(), shapes, norm)
    with pytest.raises(ConfigurationError, match=r"does not list there.*model.norm.weight"):
        read_blueprint(directory)


def test_torch_weights_are_refused_without_torch(small: Small) -> None:
    directory = small.write(small.config(), small.shapes())
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ExportFailed, match="save_pretrained"):
        read_blueprint(directory)
    (directory / "pytorch_model.bin").unlink()
    with pytest.raises(ConfigurationError, match="holds no weights"):
        read_blueprint(directory)


def test_sliding_window_that_llama_cpp_has_not_is_told(small: Small) -> None:
    config = small.config(architectures=["MistralForCausalLM"], sliding_window=128)
    blueprint = read_blueprint(small.write(config, small.shapes()))
    assert blueprint.facts.sliding_window == 128
    assert any("to 128: beyond" in note for note in blueprint.notes)
    off = small.write({**config, "sliding_window": None}, small.shapes(), name="off")
    assert read_blueprint(off).notes == ()


def test_qwen3_reranker_is_refused(small: Small) -> None:
    config = small.config(architectures=["Qwen3ForCausalLM"], head_dim=16)
    shapes = small.shapes(head_norms=True)
    directory = small.write(config, shapes, name="Qwen3-Reranker-0.6B")
    with pytest.raises(ExportFailed, match="reranker"):
        read_blueprint(directory)
    assert read_blueprint(directory.rename(directory.with_name("Qwen3-0.6B"))).notes == ()


def test_torch_is_not_imported(small: Small) -> None:
    directory = small.write(small.config(), small.shapes())
    program = (
        "import sys; from pathlib import Path\n"
        "from edgeship.exporters.gguf.architectures import read_blueprint\n"
        "read_blueprint(Path(sys.argv[1])); assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True)
