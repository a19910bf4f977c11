from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Shapes = Mapping[str, Sequence[int]]


def _write_shard(file: Path, shapes: Shapes, element: str) -> None:
    item_bytes = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8}[element]
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin = end
        count = 1
        for size in shape:
            count *= size
        end += count * item_bytes
        header[name] = {"dtype": element, "shape": list(shape), "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    with file.open("wb") as opened:
        opened.write(len(raw).to_bytes(8, "little") + raw)
        opened.truncate(8 + len(raw) + end)  # a hole: the weights are not looked at


_LAYER = (4, 2, 96)
"""Query heads, key heads and feed-forward width of a layer that `_llama_config` describes."""


def _llama_config(**changes: object) -> dict[str, Any]:
    """A Llama of two layers; a change to None leaves the key out."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "vocab_size": 96,
        "tie_word_embeddings": True,
        **changes,
    }
    return {key: value for key, value in config.items() if value is not None}


def _decoder_shapes(
    layers: Iterable[tuple[int, int, int]] = (_LAYER, _LAYER),
    *,
    head_dim: int = 16,
    hidden: int = 64,
    prefix: str = "model.",
    head: bool = False,
    head_norms: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Tensors of a decoder; a layer of 0 heads has no attention."""
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}embed_tokens.weight": (96, hidden)}
    for index, (heads, kv_heads, ffn) in enumerate(layers):
        layer = f"{prefix}layers.{index}"
        attention = f"{layer}.self_attn"
        shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
        if heads:
            shapes[f"{attention}.q_proj.weight"] = (heads * head_dim, hidden)
            shapes[f"{attention}.k_proj.weight"] = (kv_heads * head_dim, hidden)
            shapes[f"{attention}.v_proj.weight"] = (kv_heads * head_dim, hidden)
            shapes[f"{attention}.o_proj.weight"] = (hidden, heads * head_dim)
        if heads and head_norms:
            shapes[f"{attention}.q_norm.weight"] = (head_dim,)
            shapes[f"{attention}.k_norm.weight"] = (head_dim,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        if ffn:
            shapes[f"{layer}.mlp.gate_proj.weight"] = (ffn, hidden)
            shapes[f"{layer}.mlp.up_proj.weight"] = (ffn, hidden)
            shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, ffn)
    shapes[f"{prefix}norm.weight"] = (hidden,)
    if head:
        shapes["lm_head.weight"] = (96, hidden)
    return shapes


class Small:
    """Small checkpoints, below one directory."""

    config = staticmethod(_llama_config)
    shapes = staticmethod(_decoder_shapes)

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(
        self,
        config: Mapping[str, object],
        *shards: Shapes,
        name: str = "model",
        element: str = "BF16",
    ) -> Path:
        """A directory whose weights are zeros that take no space."""
        directory = self._root / name
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(config))
        if len(shards) == 1:
            _write_shard(directory / "model.safetensors", shards[0], element)
            return directory
        weight_map = {}
        for number, shapes in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            _write_shard(directory / file, shapes, element)
            weight_map.update(dict.fromkeys(shapes, file))
        index = {"metadata": {}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        return directory


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


@pytest.fixture(scope="session")
def llama_cpp() -> Path:
    """The source tree of llama.cpp."""
    named = os.environ.get("EDGESHIP_LLAMA_CPP")
    root = Path(named) if named else Path(__file__).parents[4] / ".cache" / "llama.cpp"
    if not (root / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no source of llama.cpp: make fixtures")
    return root
