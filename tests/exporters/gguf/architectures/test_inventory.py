from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeship.errors import ConfigurationError
from edgeship.exporters.gguf.architectures import read_blueprint

if TYPE_CHECKING:
    from tests.exporters.gguf.architectures.conftest import Small


def test_each_kind_of_misfit_is_named_with_its_file(small: Small) -> None:
    shapes = small.shapes()
    del shapes["model.layers.0.self_attn.v_proj.weight"]
    shapes["model.layers.1.mlp.down_proj.weight"] = (64, 95)
    shapes["model.layers.1.self_attn.rotary.weight"] = (4,)
    with pytest.raises(ConfigurationError) as caught:
        read_blueprint(small.write(small.config(), shapes))
    found = {problem.where.partition(": ")[2]: problem for problem in caught.value.problems}
    assert found.keys() == {
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.1.self_attn.rotary.weight",
    }
    assert all("model.safetensors" in problem.where for problem in caught.value.problems)
    misfit = found["model.layers.1.mlp.down_proj.weight"]
    assert (misfit.expected, misfit.found) == ("[64, 96]", "[64, 95]")


def test_shard_of_a_misfit_is_named(small: Small) -> None:
    shapes = small.shapes()
    norm = {"model.norm.weight": (63,)}
    del shapes["model.norm.weight"]
    with pytest.raises(ConfigurationError, match=r"model-00002-of-00002.safetensors: model.norm"):
        read_blueprint(small.write(small.config(), shapes, norm))


def test_many_misfits_are_counted_after_the_first_few(small: Small) -> None:
    shapes = small.shapes()
    extra = {f"model.adapter.{index}.weight": (2, 2) for index in range(9)}
    with pytest.raises(ConfigurationError) as caught:
        read_blueprint(small.write(small.config(), {**shapes, **extra}))
    assert len(caught.value.problems) == 6
    assert "4 more of this kind" in str(caught.value)


def test_elements_that_are_no_widened_float_are_refused(small: Small) -> None:
    directory = small.write(small.config(), small.shapes(), element="F64")
    with pytest.raises(ConfigurationError, match="expected F32, F16, BF16, found F64"):
        read_blueprint(directory)


def test_buffers_of_old_checkpoints_are_left_out(small: Small) -> None:
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": (8,)}
    blueprint = read_blueprint(small.write(small.config(), {**small.shapes(), **buffer}))
    assert not any("inv_freq" in plan.source for plan in blueprint.tensors)


def test_biases_are_taken_where_llama_cpp_has_a_place_for_them(small: Small) -> None:
    bias = {"model.layers.0.self_attn.o_proj.bias": (64,)}
    llama = read_blueprint(small.write(small.config(), {**small.shapes(), **bias}))
    assert "blk.0.attn_output.bias" in [plan.name for plan in llama.tensors]
    config = small.config(architectures=["Qwen2ForCausalLM"])
    qwen = small.write(config, {**small.shapes(), **bias}, name="qwen")
    with pytest.raises(ConfigurationError, match=r"o_proj.bias: the tensor has no place"):
        read_blueprint(qwen)


def test_query_biases_are_permuted_with_their_rows(small: Small) -> None:
    bias = {"model.layers.0.self_attn.q_proj.bias": (64,)}
    blueprint = read_blueprint(small.write(small.config(), {**small.shapes(), **bias}))
    plans = {plan.name: plan for plan in blueprint.tensors}
    assert plans["blk.0.attn_q.bias"].permuted_heads == 4
