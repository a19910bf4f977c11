from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.exporters.gguf.architectures import read_blueprint
from edgeship.exporters.gguf.blueprint import ValueType

if TYPE_CHECKING:
    from tests.exporters.gguf.architectures.conftest import Small

_UNEQUAL = ((4, 2, 96), (6, 3, 40))


def test_unequal_layers_become_arrays_of_deci(small: Small) -> None:
    blueprint = read_blueprint(small.write(small.config(), small.shapes(_UNEQUAL)))
    metadata = dict(blueprint.metadata)
    assert blueprint.architecture == metadata["general.architecture"].value == "deci"
    heads = metadata["deci.attention.head_count"]
    assert (heads.type, heads.item) == (ValueType.ARRAY, ValueType.INT32)
    assert heads.value == (4, 6)
    assert metadata["deci.attention.head_count_kv"].value == (2, 3)
    assert metadata["deci.feed_forward_length"].value == (96, 40)
    assert metadata["deci.rope.dimension_count"].value == 16
    assert blueprint.facts.ffn == (96, 40)
    assert blueprint.notes == (
        "config.json says num_attention_heads = 4, the tensors have 4, 6: theirs were written",
        "config.json says num_key_value_heads = 2, the tensors have 2, 3: theirs were written",
        "config.json says intermediate_size = 96, the tensors have 40, 96: theirs were written",
        "written as deci: llama.cpp's llama takes layers of one width only",
    )


def test_lists_in_the_configuration_are_held_against_the_tensors(small: Small) -> None:
    lists = {"num_attention_heads": [4, 6], "num_key_value_heads": [2, 3]}
    lists["intermediate_size"] = [96, 40]
    config = small.config(**lists)
    blueprint = read_blueprint(small.write(config, small.shapes(_UNEQUAL)))
    assert blueprint.facts.head_dim == 16
    assert len(blueprint.notes) == 1
    wrong = small.config(**{**lists, "num_attention_heads": [4, 4]})
    with pytest.raises(ConfigurationError, match=r"expected \[4, 6\], found \[4, 4\]"):
        read_blueprint(small.write(wrong, small.shapes(_UNEQUAL), name="wrong"))
    short = small.config(intermediate_size=[96])
    with pytest.raises(ConfigurationError, match="a list of 2 counts"):
        read_blueprint(small.write(short, small.shapes(), name="short"))


def test_lists_of_equal_numbers_are_one_number(small: Small) -> None:
    config = small.config(num_attention_heads=[4, 4], intermediate_size=[96, 96])
    blueprint = read_blueprint(small.write(config, small.shapes()))
    assert blueprint.architecture == "llama"
    assert dict(blueprint.metadata)["llama.feed_forward_length"].value == 96


def test_queries_and_keys_of_qwen2_are_permuted_for_deci_alone(small: Small) -> None:
    config = small.config(architectures=["Qwen2ForCausalLM"])
    bias = {"model.layers.1.self_attn.k_proj.bias": (48,)}
    pruned = read_blueprint(small.write(config, {**small.shapes(_UNEQUAL), **bias}))
    permuted = {plan.name: plan.permuted_heads for plan in pruned.tensors if plan.permuted_heads}
    assert permuted == {
        "blk.0.attn_q.weight": 4,
        "blk.0.attn_k.weight": 2,
        "blk.1.attn_q.weight": 6,
        "blk.1.attn_k.weight": 3,
        "blk.1.attn_k.bias": 3,
    }
    whole = read_blueprint(small.write(config, small.shapes(), name="whole"))
    assert whole.architecture == "qwen2"
    assert not any(plan.permuted_heads for plan in whole.tensors)


def test_layer_without_attention_loses_its_norm_too(small: Small) -> None:
    blueprint = read_blueprint(small.write(small.config(), small.shapes(((4, 2, 96), (0, 0, 96)))))
    assert dict(blueprint.metadata)["deci.attention.head_count"].value == (4, 0)
    names = [plan.name for plan in blueprint.tensors if plan.name.startswith("blk.1.")]
    assert sorted(names) == [f"blk.1.ffn_{part}.weight" for part in ("down", "gate", "norm", "up")]
    assert "no attention in layers 1" in blueprint.notes


def test_qwen2_with_fewer_heads_everywhere_is_deci_with_single_numbers(small: Small) -> None:
    config = small.config(architectures=["Qwen2ForCausalLM"])
    blueprint = read_blueprint(small.write(config, small.shapes(((2, 2, 96), (2, 2, 96)))))
    metadata = dict(blueprint.metadata)
    assert metadata["deci.attention.head_count"].value == 2
    assert metadata["deci.attention.key_length"].value == 16


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (((0, 0, 96), (4, 2, 96)), "layer 0 has no attention"),
        (((4, 2, 96), (4, 2, 0)), "layer 1: the layer has no feed-forward part"),
        (((4, 3, 96), (4, 2, 96)), "layer 0: the query heads are not divided evenly"),
    ],
)
def test_what_llama_cpp_would_compute_wrongly_is_refused(
    small: Small, layers: tuple[tuple[int, int, int], ...], message: str
) -> None:
    with pytest.raises(ExportFailed, match=message):
        read_blueprint(small.write(small.config(), small.shapes(layers)))


def test_unequal_qwen3_is_refused_and_equal_is_not(small: Small) -> None:
    config = small.config(architectures=["Qwen3ForCausalLM"], head_dim=16)
    with pytest.raises(ExportFailed, match=r"no normalisation of q and k.*heads 4 6") as caught:
        read_blueprint(small.write(config, small.shapes(_UNEQUAL, head_norms=True)))
    assert "feed-forward 96 40" in str(caught.value)
    narrow = small.shapes(((2, 1, 40), (2, 1, 40)), head_norms=True)
    assert read_blueprint(small.write(config, narrow, name="narrow")).architecture == "qwen3"


def test_width_of_a_head_that_cannot_be_told_is_asked_for(small: Small) -> None:
    config = small.config(num_attention_heads=3)  # 64 / 3 is 21
    with pytest.raises(ConfigurationError, match="head_dim: the width of a head cannot be told"):
        read_blueprint(small.write(config, small.shapes()))
    config = small.config(head_dim=24)
    with pytest.raises(ConfigurationError, match=r"q_proj.weight: .* multiple of 24 .*found 64"):
        read_blueprint(small.write(config, small.shapes(), name="other"))


def test_layers_that_are_not_there_are_counted(small: Small) -> None:
    config = small.config(num_hidden_layers=4)
    with pytest.raises(ConfigurationError, match="found none of layers 2, 3"):
        read_blueprint(small.write(config, small.shapes()))
