"""Hugging Face JSON files: `config.json` and the index of shards, read as untrusted text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.tensor_name import shown_name

CONFIG: Final = "config.json"
_LIMIT_BYTES: Final = 64 << 20
"""A choice: indexes of the largest checkpoints have about 10 MB, configurations below 1 MB."""
_LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HIDDEN: Final = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS: Final = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS: Final = ("num_key_value_heads",)
_FFN: Final = ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim")
_VOCABULARY: Final = ("vocab_size",)
_CAUSAL: Final = ("ForCausalLM", "LMHeadModel")
_ENCODER_DECODER: Final = ("ForConditionalGeneration", "ForSeq2SeqLM")


@dataclass(frozen=True, kw_only=True)
class HfConfig:
    """What `config.json` says of the architecture; None where it does not.

    Attributes:
        quantization: Its `quantization_config`, reduced to texts and numbers.
    """

    model_type: str | None
    architecture: str | None
    layers: int | None
    hidden: int | None
    heads: int | None
    kv_heads: int | None
    ffn: int | None
    vocabulary: int | None
    ties_embeddings: bool
    origin: str | None
    quantization: Mapping[str, str] | None

    @property
    def is_causal_lm(self) -> bool:
        """Whether the class that it names generates text from left to right."""
        return (self.architecture or "").endswith(_CAUSAL)

    @property
    def is_encoder(self) -> bool:
        """Whether it is neither that nor an encoder with a decoder, as far as the name says."""
        name = self.architecture or ""
        return bool(name) and not self.is_causal_lm and not name.endswith(_ENCODER_DECODER)


def read_hf_config(file: Path) -> HfConfig:
    """Read `config.json`; the text part of a model of several modes stands for all of it.

    Raises:
        ConfigurationError: It cannot be read, or is no JSON object.
    """
    root = read_json_object(file)
    inner = root.get("text_config")
    text = {**root, **inner} if isinstance(inner, dict) else root
    architectures = root.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    quantization = root.get("quantization_config")
    return HfConfig(
        model_type=_text(root.get("model_type")),
        architecture=_text(named),
        layers=_count(text, _LAYERS),
        hidden=_count(text, _HIDDEN),
        heads=_count(text, _HEADS),
        kv_heads=_count(text, _KV_HEADS),
        ffn=_count(text, _FFN),
        vocabulary=_count(text, _VOCABULARY),
        ties_embeddings=text.get("tie_word_embeddings") is True,
        origin=_text(root.get("_name_or_path")),
        quantization=_scalars(quantization) if isinstance(quantization, dict) else None,
    )


def read_json_object(file: Path) -> dict[str, object]:
    """The object in a JSON file of at most 64 MiB.

    Raises:
        ConfigurationError: It cannot be read, is too long, or is no JSON object.
    """
    found: str | None
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LIMIT_BYTES + 1)
        if len(raw) <= _LIMIT_BYTES:
            value = json.loads(raw)
            if isinstance(value, dict):
                return value
            found = type(value).__name__
        else:
            found = f"more than {_LIMIT_BYTES} bytes"
    except OSError as error:
        found = error.strerror
    except (ValueError, RecursionError) as error:
        found = str(error)
    problem = Problem(
        where=str(file),
        what="the file cannot be read",
        expected="a JSON object",
        found=found,
        remedy="fetch or save the model again",
    )
    raise ConfigurationError(problem)


def _count(table: Mapping[str, object], keys: tuple[str, ...]) -> int | None:
    """The first of `keys` that is an integer from 1 to 2^40; more is no model's."""
    for key in keys:
        value = table.get(key)
        if type(value) is int and 0 < value <= 1 << 40:
            return value
    return None


def _text(value: object) -> str | None:
    return shown_name(value) if isinstance(value, str) and value else None


def _scalars(table: Mapping[str, object]) -> dict[str, str]:
    return {
        shown_name(key): shown_name(str(value))
        for key, value in table.items()
        if isinstance(value, (str, bool, int, float)) and len(str(value)) < 100
    }
