"""Reading: the blueprint of a Hugging Face directory, from its headers and `config.json` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, ExportFailed, Problem
from edgeship.exporters.gguf.architectures.bert import bert_blueprint
from edgeship.exporters.gguf.architectures.configuration import Configuration, read_configuration
from edgeship.exporters.gguf.architectures.decoder import Decoder
from edgeship.exporters.gguf.architectures.decoder_blueprint import decoder_blueprint
from edgeship.exporters.gguf.architectures.llama import LLAMA, MISTRAL
from edgeship.exporters.gguf.architectures.qwen2 import QWEN2
from edgeship.exporters.gguf.architectures.qwen3 import QWEN3
from edgeship.exporters.gguf.architectures.refusals import refuse_foreign, unknown_architecture
from edgeship.exporters.gguf.blueprint import Blueprint
from edgeship.source.hf_directory import INDEX, TORCH_WHOLE, WHOLE, ShardedSource, open_shards
from edgeship.source.safetensors_file import open_safetensors
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import TensorEntry

_DECODERS: Final[Mapping[str, Decoder]] = {
    "LlamaForCausalLM": LLAMA,
    "LlamaModel": LLAMA,
    "MistralForCausalLM": MISTRAL,
    "Qwen2ForCausalLM": QWEN2,
    "Qwen2Model": QWEN2,
    "Qwen3ForCausalLM": QWEN3,
    "Qwen3Model": QWEN3,
}
_ENCODERS: Final = ("BertModel", "BertForMaskedLM")
ARCHITECTURES: Final = (*_DECODERS, *_ENCODERS)
"""What `architectures` of a `config.json` may name."""


def read_blueprint(directory: Path) -> Blueprint:
    """The blueprint of a checkpoint; none of its weights are read.

    Raises:
        ConfigurationError: Files or tensors that are missing, damaged or not of one model.
        ExportFailed: A model that llama.cpp, or this exporter, does not know.
        RequirementMissing: gguf is not installed.
    """
    configuration = read_configuration(directory)
    name = architecture_name(configuration)
    refuse_foreign(configuration)
    entries = _read_entries(directory)
    if name in _ENCODERS:
        return bert_blueprint(directory, configuration, entries)
    return decoder_blueprint(directory, configuration, entries, _DECODERS[name], name)


def architecture_name(configuration: Configuration) -> str:
    """The class that the configuration names, one of `ARCHITECTURES`.

    Raises:
        ExportFailed: It is another one, or none.
    """
    named = configuration.texts("architectures")
    name = named[0] if named else None
    if name is None or name not in ARCHITECTURES:
        shown = None if name is None else shown_name(name)
        raise unknown_architecture(configuration, shown, ARCHITECTURES)
    return name


def _read_entries(directory: Path) -> Mapping[str, TensorEntry]:
    if (directory / WHOLE).exists():
        with open_safetensors(directory / WHOLE) as file:
            return file.entries
    if (directory / INDEX).exists():
        with open_shards(directory / INDEX) as source:
            _refuse_unlisted(directory, source)
            return source.entries
    if (directory / TORCH_WHOLE).exists():
        what, expected = "the weights are a torch file, which is not read in parts", WHOLE
        remedy = "save the model again with transformers' save_pretrained"
        problem = Problem(
            where=str(directory / TORCH_WHOLE), what=what, expected=expected, remedy=remedy
        )
        raise ExportFailed(problem)
    problem = Problem(
        where=str(directory),
        what="the directory holds no weights",
        expected=f"{WHOLE}, or {INDEX} with its shards",
        remedy="name a directory that transformers wrote",
    )
    raise ConfigurationError(problem)


def _refuse_unlisted(directory: Path, source: ShardedSource) -> None:
    """A tensor that the index does not list may be a newer one than that which it lists."""
    if source.unlisted:
        shown = ", ".join(map(shown_name, source.unlisted[:5]))
        problem = Problem(
            where=str(directory / INDEX),
            what="the shards hold tensors that the index does not list there",
            found=f"{len(source.unlisted)}: {shown}",
            remedy="fetch or save the model again",
        )
        raise ConfigurationError(problem)
