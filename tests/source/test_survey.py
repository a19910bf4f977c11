import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from edgeship.errors import ConfigurationError
from edgeship.source.architecture import ArchitectureKind
from edgeship.source.looks import Certainty, Look, Trait
from edgeship.source.survey import Survey, survey_checkpoint

NO_SIGN, MAY_BE, LOOKS, IS = (
    Certainty.NO_SIGN,
    Certainty.MAY_BE,
    Certainty.LOOKS,
    Certainty.IS,
)


def survey(tmp_path: Path, tensors: Mapping[str, Tensor], config: object = None) -> Survey:
    """Of a file, or of a Hugging Face directory where there is a configuration."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    file = tmp_path / "model.safetensors"
    save_file(contiguous, file)
    if config is None:
        return survey_checkpoint(file)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return survey_checkpoint(tmp_path)


def look(found: Survey, trait: Trait) -> Look:
    return next(item for item in found.looks if item.trait is trait)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 1e-6


def make_net(widths: tuple[int, ...] = (16, 16, 16, 16)) -> nn.Module:
    """A stem, two blocks of convolution and BatchNorm each, a head."""
    torch.manual_seed(0)
    first, second, third, fourth = widths

    def block(before: int, inner: int, after: int) -> nn.Module:
        parts = {
            "conv1": nn.Conv2d(before, inner, 3, bias=False),
            "bn1": nn.BatchNorm2d(inner),
            "conv2": nn.Conv2d(inner, after, 3, bias=False),
            "bn2": nn.BatchNorm2d(after),
        }
        return nn.ModuleDict(parts)

    blocks = [block(first, second, first), block(first, third, first), block(first, fourth, first)]
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, first, 3, bias=False),
            "blocks": nn.ModuleList(blocks),
            "head": nn.Linear(first, 10),
        }
    )


def llama(layers: int = 2, hidden: int = 16, ffn: int = 32, seed: int = 0) -> dict[str, Tensor]:
    tensors = {"model.embed_tokens.weight": random(40, hidden, seed=seed)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        own = 100 * seed + 10 * layer
        tensors[f"{prefix}.mlp.gate_proj.weight"] = random(ffn, hidden, seed=own + 1)
        tensors[f"{prefix}.mlp.down_proj.weight"] = random(hidden, ffn, seed=own + 2)
        tensors[f"{prefix}.self_attn.q_proj.weight"] = random(hidden, hidden, seed=own + 3)
        tensors[f"{prefix}.input_layernorm.weight"] = torch.ones(hidden)
    return tensors


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
}


def test_parameters_leave_running_statistics_out(tmp_path: Path) -> None:
    net = make_net()
    found = survey(tmp_path, net.state_dict())
    assert found.parameters == sum(item.numel() for item in net.parameters())
    assert found.buffers == sum(item.numel() for item in net.buffers())
    assert found.size_bytes == 4 * found.parameters + sum(
        item.numel() * item.element_size() for item in net.buffers()
    )
    assert sum(found.bytes_by_type.values()) == found.size_bytes


def test_an_untouched_net_looks_full_and_nothing_else(tmp_path: Path) -> None:
    found = survey(tmp_path, make_net().state_dict())
    assert {item.trait: item.certainty for item in found.looks} == {
        Trait.PRUNED: NO_SIGN,
        Trait.QUANTIZED: NO_SIGN,
        Trait.DISTILLED: NO_SIGN,
        Trait.FULL: LOOKS,
    }
    assert "in the weights alone" in look(found, Trait.DISTILLED).evidence[0]
    assert not found.findings


def test_architecture_comes_from_names_and_shapes(tmp_path: Path) -> None:
    found = survey(tmp_path, make_net().state_dict()).architecture
    assert found.kind is ArchitectureKind.CONVOLUTIONAL
    assert (found.layers, found.convolutions, found.linears) == (3, 7, 1)
    assert [group.shown for group in found.groups] == ["blocks.0-2"]
    assert (found.source, found.hidden, found.widths) == ("names and shapes", 16, (16,))


def test_bare_layers_of_a_sequence_are_no_blocks(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    found = survey(tmp_path, net.state_dict()).architecture
    assert (found.kind, found.layers, found.groups) == (ArchitectureKind.LINEAR, None, ())


def test_torchvision_like_indices_behind_an_underscore_are_blocks(tmp_path: Path) -> None:
    names = [f"encoder.layers.encoder_layer_{i}.mlp.{j}.weight" for i in (0, 1) for j in (0, 3)]
    found = survey(tmp_path, {name: random(4, 4, seed=i) for i, name in enumerate(names)})
    assert [group.shown for group in found.architecture.groups] == [
        "encoder.layers.encoder_layer_0-1"
    ]


def test_architecture_comes_from_the_configuration_where_there_is_one(tmp_path: Path) -> None:
    found = survey(tmp_path, llama(), CONFIG).architecture
    assert found.kind is ArchitectureKind.CAUSAL_LM
    assert (found.model_type, found.source) == ("llama", "config.json")
    assert (found.layers, found.hidden, found.ffn, found.vocabulary) == (2, 16, 32, 40)
    assert (found.heads, found.kv_heads) == (4, 2)
    assert not found.disagreements


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("num_hidden_layers", 3, "3 layers, the tensors are of 2"),
        ("hidden_size", 17, "hidden size of 17, model.embed_tokens.weight has 16"),
        ("intermediate_size", 64, "feed-forward parts of 64, the tensors have 32"),
        ("vocab_size", 41, "vocabulary of 41, model.embed_tokens.weight has 40"),
    ],
)
def test_a_configuration_that_contradicts_the_tensors_is_told(
    tmp_path: Path, key: str, value: int, text: str
) -> None:
    found = survey(tmp_path, llama(), CONFIG | {key: value})
    (finding,) = found.findings
    assert text in finding


def test_exact_zeros_look_pruned_with_their_share(tmp_path: Path) -> None:
    net = make_net()
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if "conv" in name:
                tensor.view(-1)[: tensor.numel() // 2] = 0
    found = look(survey(tmp_path, net.state_dict()), Trait.PRUNED)
    assert found.certainty is LOOKS
    assert "exact zeros, in 6 of 8 weights" in found.evidence[0]


def test_channels_that_are_all_zero_are_counted(tmp_path: Path) -> None:
    state = make_net().state_dict()
    state["blocks.1.conv1.weight"][3:5] = 0
    state["blocks.1.conv2.weight"][:, 3:5] = 0
    found = survey(tmp_path, state)
    evidence = "\n".join(look(found, Trait.PRUNED).evidence)
    assert "2 of 122 output channels are all zero, in 1 of 8 weights" in evidence
    assert "2 of 115 input channels are all zero, in 1 of 8 weights" in evidence
    (facts,) = [item for item in found.tensors if item.entry.name == "blocks.1.conv1.weight"]
    assert facts.to_json()["zero_output_channels"] == 2


def test_one_channel_that_is_all_zero_may_have_decayed(tmp_path: Path) -> None:
    state = make_net((64, 64, 64, 64)).state_dict()
    state["blocks.1.conv1.weight"][3] = 0
    pruned = look(survey(tmp_path, state), Trait.PRUNED)
    assert pruned.certainty is MAY_BE
    assert "1 of 458 output channels are all zero" in pruned.evidence[0]


def test_many_channels_that_are_all_zero_look_pruned(tmp_path: Path) -> None:
    state = make_net().state_dict()
    for index in range(3):
        state[f"blocks.{index}.conv1.weight"][:3] = 0
    assert look(survey(tmp_path, state), Trait.PRUNED).certainty is LOOKS


def test_masks_that_were_left_in_are_pruning_for_sure(tmp_path: Path) -> None:
    net = make_net()
    prune.random_unstructured(net["stem"], "weight", amount=0.25)  # type: ignore[index, no-untyped-call]  # torch's
    found = survey(tmp_path, net.state_dict())
    assert found.leftovers == ("stem.weight",)
    pruned = look(found, Trait.PRUNED)
    assert pruned.certainty is IS
    assert "stem.weight_orig and _mask), which switch off 25 %" in pruned.evidence[0]
    assert found.parameters == sum(item.numel() for item in make_net().parameters())


def test_widths_that_rise_and_fall_to_odd_numbers_look_pruned(tmp_path: Path) -> None:
    found = look(survey(tmp_path, make_net((16, 11, 13, 7)).state_dict()), Trait.PRUNED)
    assert found.certainty is LOOKS
    assert "blocks.*.conv1.weight has 11, 13, 7" in found.evidence[0]
    assert "3 of 7 inner widths are no multiples of 8: 7, 11, 13" in found.evidence[1]


def test_widths_that_only_rise_or_are_only_odd_may_be_a_design(tmp_path: Path) -> None:
    for widths in ((16, 8, 16, 32), (12, 12, 12, 12), (16, 32, 8, 16)):
        found = look(survey(tmp_path, make_net(widths).state_dict()), Trait.PRUNED)
        assert found.certainty is MAY_BE, widths


def test_number_of_classes_is_no_odd_width(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 37))
    assert look(survey(tmp_path, net.state_dict()), Trait.PRUNED).certainty is NO_SIGN


def test_integers_with_scales_look_quantized(tmp_path: Path) -> None:
    tensors = {
        "fc.weight": torch.ones(4, 4, dtype=torch.int8),
        "fc.scale": torch.ones(1),
        "fc.zero_point": torch.zeros(1, dtype=torch.int64),
    }
    found = survey(tmp_path, tensors)
    quantized = look(found, Trait.QUANTIZED)
    assert quantized.certainty is LOOKS
    assert quantized.evidence == (
        "1 of 1 weights are stored as 8-bit integers",
        "tensors with a quantizer's names (1): fc.zero_point",
    )
    assert look(found, Trait.FULL).certainty is NO_SIGN


def test_packed_int4_with_its_configuration_is_quantized(tmp_path: Path) -> None:
    tensors = {
        "model.layers.0.q.qweight": torch.ones(4, 4, dtype=torch.int32),
        "model.layers.0.q.qzeros": torch.ones(1, 4, dtype=torch.int32),
        "model.layers.0.q.scales": torch.ones(1, 4),
    }
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "x": [1]}}
    quantized = look(survey(tmp_path, tensors, config), Trait.QUANTIZED)
    assert quantized.certainty is IS
    assert quantized.evidence[0].endswith("quant_method gptq, bits 4")
    assert "packed integers (1): model.layers.0.q.qweight" in quantized.evidence[1]


def test_masks_and_indices_that_some_models_store_are_no_weights(tmp_path: Path) -> None:
    tensors = {
        "h.0.attn.bias": torch.ones(1, 1, 8, 8).tril(),
        "h.0.mask": torch.ones(8, 8, dtype=torch.bool),
        "h.0.relative_position_index": torch.zeros(8, 8, dtype=torch.int64),
        "h.0.mlp.weight": random(8, 8),
        "h.0.mlp.bias": random(8),
    }
    found = survey(tmp_path, tensors)
    assert (found.parameters, found.buffers) == (72, 192)
    assert look(found, Trait.PRUNED).certainty is NO_SIGN
    assert look(found, Trait.QUANTIZED).certainty is NO_SIGN


def test_eight_bit_floats_look_quantized(tmp_path: Path) -> None:
    found = survey(tmp_path, {"a.weight": random(4, 4).to(torch.float8_e4m3fn)})
    assert look(found, Trait.QUANTIZED).evidence == ("1 of 1 weights are stored as 8-bit floats",)


def test_a_configuration_that_says_distilled_is_quoted(tmp_path: Path) -> None:
    config = {"architectures": ["DistilBertModel"], "model_type": "distilbert"}
    found = look(survey(tmp_path, llama(), config), Trait.DISTILLED)
    assert found.certainty is LOOKS
    assert "config.json names it distilbert" in found.evidence[0]


def test_equal_weights_are_tied_and_count_once(tmp_path: Path) -> None:
    tensors = llama()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    found = survey(tmp_path, tensors, CONFIG)
    (tied,) = found.tied
    assert set(tied) == {"lm_head.weight", "model.embed_tokens.weight"}
    assert found.parameters == sum(item.numel() for item in llama().values())


def test_equal_vectors_and_zeros_are_not_tied(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(4), "b": torch.ones(4), "c": torch.zeros(2, 2)}
    tensors["d"] = torch.zeros(2, 2)
    assert survey(tmp_path, tensors).tied == ()


def test_batch_norm_channels_with_a_gamma_of_nearly_zero_are_dead(tmp_path: Path) -> None:
    state = make_net().state_dict()
    state["blocks.0.bn1.weight"][:3] = torch.tensor([0.0, 1e-5, -9e-4])
    found = survey(tmp_path, state).batch_norm
    assert found is not None
    assert (found.layers, found.channels, found.dead) == (6, 96, 3)
    assert found.dead_in == ("blocks.0.bn1",)


def test_batch_norm_without_gamma_has_no_dead_channels(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False))
    found = survey(tmp_path, net.state_dict()).batch_norm
    assert found is not None
    assert (found.channels, found.dead) == (4, 0)


def test_values_that_are_not_finite_are_found(tmp_path: Path) -> None:
    state = make_net().state_dict()
    state["stem.weight"][0, 0, 0, :2] = torch.tensor([torch.nan, torch.inf])
    assert survey(tmp_path, state).findings == (
        "2 of 432 elements of stem.weight are NaN or infinite",
    )


def test_a_survey_is_json_whatever_it_holds(tmp_path: Path) -> None:
    state = make_net().state_dict()
    state["stem.weight"][:] = torch.nan
    found = survey(tmp_path, state)
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["parameters"] == found.parameters
    assert len(value["tensors"]) == len(state)


def test_progress_ends_at_all_bytes(tmp_path: Path) -> None:
    save_file(llama(), tmp_path / "w.safetensors")
    seen: list[tuple[int, int]] = []
    found = survey_checkpoint(
        tmp_path / "w.safetensors", on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (found.size_bytes, found.size_bytes)
    assert len(seen) == len(found.tensors)


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    for tensors in ({}, {"a": torch.zeros(0)}):
        save_file(tensors, tmp_path / "w.safetensors")
        with pytest.raises(ConfigurationError, match="no tensors"):
            survey_checkpoint(tmp_path / "w.safetensors")
