from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.exporters.gguf.architectures import read_blueprint

if TYPE_CHECKING:
    from tests.exporters.gguf.architectures.conftest import Small

_CONFIG = {
    "architectures": ["BertModel"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 80,
    "max_position_embeddings": 32,
}


def _shapes(prefix: str = "", weight: str = "weight", bias: str = "bias") -> dict[str, Any]:
    layer = "encoder.layer.0"
    linears = {
        f"{layer}.attention.self.query": (64, 64),
        f"{layer}.attention.self.key": (64, 64),
        f"{layer}.attention.self.value": (64, 64),
        f"{layer}.attention.output.dense": (64, 64),
        f"{layer}.intermediate.dense": (96, 64),
        f"{layer}.output.dense": (64, 96),
    }
    norms = ("embeddings", f"{layer}.attention.output", f"{layer}.output")
    shapes = {
        "embeddings.word_embeddings.weight": (80, 64),
        "embeddings.position_embeddings.weight": (32, 64),
        "embeddings.token_type_embeddings.weight": (2, 64),
        **{f"{name}.weight": shape for name, shape in linears.items()},
        **{f"{name}.bias": shape[:1] for name, shape in linears.items()},
        **{f"{name}.LayerNorm.{weight}": (64,) for name in norms},
        **{f"{name}.LayerNorm.{bias}": (64,) for name in norms},
    }
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def _pool(directory: Path, settings: dict[str, object], folder: str = "1_Pooling") -> None:
    modules = [{"path": "", "type": "x.Transformer"}, {"path": folder, "type": "x.Pooling"}]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, 1),
        ({"pooling_mode_cls_token": True}, 2),
        ({"pooling_mode": "lasttoken"}, 3),
    ],
)
def test_pooling_is_that_of_sentence_transformers(
    small: Small, settings: dict[str, object], number: int
) -> None:
    directory = small.write(_CONFIG, _shapes())
    _pool(directory, settings)
    blueprint = read_blueprint(directory)
    assert dict(blueprint.metadata)["bert.pooling_type"].value == number
    assert blueprint.facts.pooling == number
    assert not blueprint.facts.is_causal
    assert blueprint.notes == ()


def test_missing_pooling_is_told(small: Small) -> None:
    blueprint = read_blueprint(small.write(_CONFIG, _shapes()))
    assert blueprint.notes == ("no pooling is stored: modules.json names none",)
    assert "bert.pooling_type" not in dict(blueprint.metadata)


def test_pooling_that_llama_cpp_has_not_is_refused(small: Small) -> None:
    directory = small.write(_CONFIG, _shapes())
    _pool(directory, {"pooling_mode_max_tokens": True})
    with pytest.raises(ExportFailed, match="found pooling_mode_max_tokens"):
        read_blueprint(directory)


def test_pooling_outside_of_the_directory_is_refused(small: Small) -> None:
    directory = small.write(_CONFIG, _shapes())
    _pool(directory, {"pooling_mode_mean_tokens": True}, "../1_Pooling")
    with pytest.raises(ConfigurationError, match=r"modules.json: .*'\.\./1_Pooling'"):
        read_blueprint(directory)


def test_prefix_old_names_and_heads_of_other_tasks(small: Small) -> None:
    heads = {
        "cls.predictions.bias": (80,),
        "bert.pooler.dense.weight": (64, 64),
        "bert.embeddings.position_ids": (1, 32),
    }
    shapes = {**_shapes("bert.", weight="gamma", bias="beta"), **heads}
    blueprint = read_blueprint(small.write(_CONFIG, shapes))
    sources = {plan.name: plan.source for plan in blueprint.tensors}
    assert len(sources) == 5 + 16
    assert sources["token_embd_norm.weight"] == "bert.embeddings.LayerNorm.gamma"
    assert sources["blk.0.layer_output_norm.bias"] == "bert.encoder.layer.0.output.LayerNorm.beta"


def test_names_of_classes_are_stored_unless_they_are_the_default_two(small: Small) -> None:
    two = {**_CONFIG, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    key = "bert.classifier.output_labels"
    assert key not in dict(read_blueprint(small.write(two, _shapes())).metadata)
    own = {**_CONFIG, "id2label": {"10": "c", "2": "b", "0": "a"}}
    metadata = dict(read_blueprint(small.write(own, _shapes(), name="own")).metadata)
    assert metadata[key].value == ("a", "b", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "has relative_key"),
        ({"hidden_act": "relu"}, "computes gelu here"),
    ],
)
def test_variants_that_llama_cpp_does_not_compute_are_refused(
    small: Small, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportFailed, match=message):
        read_blueprint(small.write({**_CONFIG, **changes}, _shapes()))


def test_heads_must_divide_the_width(small: Small) -> None:
    with pytest.raises(ConfigurationError, match=r"num_attention_heads: the width .* found 5"):
        read_blueprint(small.write({**_CONFIG, "num_attention_heads": 5}, _shapes()))
