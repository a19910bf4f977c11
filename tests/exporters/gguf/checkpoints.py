"""Small random checkpoints: Hugging Face directories in shards, with a tokenizer of their own."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Stored = tuple[str, NDArray[np.generic]]
"""Element type as safetensors names it, and the bits."""

_VOCABULARY: Final = 512


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama-shaped model; the widths suit every kind."""

    hidden: int = 256
    ffn: int = 512
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = _VOCABULARY
    ties_embeddings: bool = False
    has_biases: bool = False
    deviation: float = 0.02

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def write_llama(directory: Path, shape: Shape, *, element: str = "BF16", shards: int = 2) -> Path:
    """`LlamaForCausalLM`."""
    config: dict[str, object] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    return _write_model(directory, shape, config, element, shards)


def write_qwen2(directory: Path, shape: Shape, *, element: str = "BF16", shards: int = 2) -> Path:
    """`Qwen2ForCausalLM`, whose SentencePiece tokenizer the converter takes as well."""
    config: dict[str, object] = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    return _write_model(directory, shape, config, element, shards)


def tensor_shapes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes as transformers saves them."""
    keys = shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (shape.hidden,)
        yield f"{prefix}.post_attention_layernorm.weight", (shape.hidden,)
        yield f"{prefix}.self_attn.o_proj.weight", (shape.hidden, shape.hidden)
        for name, rows in (("q", shape.hidden), ("k", keys), ("v", keys)):
            yield f"{prefix}.self_attn.{name}_proj.weight", (rows, shape.hidden)
            if shape.has_biases:
                yield f"{prefix}.self_attn.{name}_proj.bias", (rows,)
        yield f"{prefix}.mlp.gate_proj.weight", (shape.ffn, shape.hidden)
        yield f"{prefix}.mlp.up_proj.weight", (shape.ffn, shape.hidden)
        yield f"{prefix}.mlp.down_proj.weight", (shape.hidden, shape.ffn)
    yield "model.norm.weight", (shape.hidden,)
    if not shape.ties_embeddings:
        yield "lm_head.weight", (shape.vocabulary, shape.hidden)


def stored(values: NDArray[np.float32], element: str) -> Stored:
    """The bits of float32 values in an element type; BF16 cuts off, which is as random."""
    match element:
        case "BF16":
            return element, (np.ascontiguousarray(values).view("<u4") >> 16).astype("<u2")
        case "F16":
            return element, values.astype("<f2")
        case "F32":
            return element, values.astype("<f4")
        case _:
            raise ValueError(element)


def write_safetensors(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Source: safetensors README, "Format"; one tensor in memory at a time."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (element, bits) in tensors.items():
        end = offset + bits.nbytes
        entries[name] = {
            "dtype": element,
            "shape": list(bits.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _, bits in tensors.values():
            file.write(bits.tobytes())


def write_shards(directory: Path, tensors: Sequence[tuple[str, Stored]], count: int) -> None:
    """The tensors in `count` shards with their index, or in one file without."""
    if count == 1:
        write_safetensors(directory / "model.safetensors", dict(tensors))
        return
    step = -(-len(tensors) // count)
    weight_map: dict[str, str] = {}
    for number in range(count):
        part = dict(tensors[number * step : (number + 1) * step])
        shard = f"model-{number + 1:05}-of-{count:05}.safetensors"
        write_safetensors(directory / shard, part)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


@cache
def sentencepiece_model() -> bytes:
    """A small BPE vocabulary with byte fallback, as Llama's, trained on made-up words."""
    from sentencepiece import SentencePieceTrainer

    generator = np.random.default_rng(5)
    syllables = ["ka", "lo", "mi", "ten", "ur", "sha", "pel", "qui", "vor", "en"]
    words = ["".join(generator.choice(syllables, 3)) for _ in range(300)]
    lines = (" ".join(generator.choice(words, 12)) for _ in range(400))
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=_VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def _write_model(
    directory: Path, shape: Shape, config: dict[str, object], element: str, shards: int
) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    tensors = []
    for name, axes in tensor_shapes(shape):
        values = generator.standard_normal(axes, np.float32) * np.float32(shape.deviation)
        if len(axes) == 1 and name.endswith("weight"):
            values += 1
        tensors.append((name, stored(values, element)))
    write_shards(directory, tensors, shards)
    (directory / "config.json").write_text(json.dumps(config | _sizes(shape, element)))
    (directory / "tokenizer.model").write_bytes(sentencepiece_model())
    tokenizer = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return directory


def _sizes(shape: Shape, element: str) -> dict[str, object]:
    return {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "hidden_act": "silu",
        "tie_word_embeddings": shape.ties_embeddings,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[element],
    }
