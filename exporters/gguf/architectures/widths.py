"""Widths of a decoder's layers, from the shapes of its tensors.

A pruned checkpoint often keeps a `config.json` with one number where its layers differ, so the
tensors have the last word; lists with a number for each layer are held against them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.architectures.configuration import Configuration
from edgeship.exporters.gguf.architectures.inventory import file_of
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import TensorEntry

_HEADS = "num_attention_heads"
_KV_HEADS = "num_key_value_heads"
_FFN = "intermediate_size"


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Heads and widths, layer by layer.

    Attributes:
        head_dim: Width of a head, of all layers.
        heads: Query heads; 0 where a layer has no attention.
        kv_heads: Key and value heads.
        ffn: Widths of the feed-forward parts; 0 where a layer has none.
        corrections: Where `config.json` says something else, a sentence each.
    """

    head_dim: int
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    ffn: tuple[int, ...]
    corrections: tuple[str, ...] = ()

    @property
    def is_uniform(self) -> bool:
        """Whether all layers are alike."""
        return all(len(set(values)) == 1 for values in (self.heads, self.kv_heads, self.ffn))


@dataclass(frozen=True, kw_only=True)
class LayerTensors:
    """The tensors of a checkpoint by layer.

    Attributes:
        directory: For messages.
        entries: Every tensor.
        prefix: What stands before `layers.`.
    """

    directory: Path
    entries: Mapping[str, TensorEntry]
    prefix: str

    def name(self, layer: int, module: str) -> str:
        """The name of a module's weight."""
        return f"{self.prefix}layers.{layer}.{module}.weight"

    def size(self, layer: int, module: str, axis: int = 0) -> int | None:
        """A size of a module's weight; None where there is no such matrix."""
        entry = self.entries.get(self.name(layer, module))
        return entry.shape[axis] if entry is not None and len(entry.shape) == 2 else None


def measure_widths(
    configuration: Configuration, tensors: LayerTensors, layers: int, default_head_dim: int | None
) -> Widths:
    """The widths that the shapes tell, or `config.json` where they do not.

    Raises:
        ConfigurationError: The width of a head cannot be told; rows of a projection that are no
            whole number of heads.
    """
    declared = {key: configuration.per_layer(key, layers) for key in (_HEADS, _KV_HEADS, _FFN)}
    head_dim = _head_dim(configuration, tensors, declared[_HEADS], default_head_dim)
    measured = Widths(
        head_dim=head_dim,
        heads=tuple(_heads(tensors, layer, "q_proj", head_dim) for layer in range(layers)),
        kv_heads=tuple(_heads(tensors, layer, "k_proj", head_dim) for layer in range(layers)),
        ffn=tuple(_ffn(tensors, layer) for layer in range(layers)),
    )
    found = {_HEADS: measured.heads, _KV_HEADS: measured.kv_heads, _FFN: measured.ffn}
    corrections = tuple(
        correction
        for key, value in declared.items()
        for correction in _correction(configuration, key, value, found[key])
    )
    return replace(measured, corrections=corrections)


def _head_dim(
    configuration: Configuration,
    tensors: LayerTensors,
    heads: tuple[int, ...] | int | None,
    default: int | None,
) -> int:
    """As declared, or as transformers derives it; from the tensors where heads are per layer."""
    if configuration.has("head_dim") or default is not None:
        head_dim = configuration.count("head_dim", default)
    elif isinstance(heads, int) and heads:
        head_dim = configuration.count("hidden_size") // heads
    else:
        listed = enumerate(heads) if isinstance(heads, tuple) else ()
        rows = ((count, tensors.size(layer, "self_attn.q_proj")) for layer, count in listed)
        head_dim = next((size // count for count, size in rows if size and count), 0)
    if head_dim < 2 or head_dim % 2:
        what = "the width of a head cannot be told"
        expected = "an even number"
        raise configuration.refusal(what, key="head_dim", expected=expected, found=head_dim)
    return head_dim


def _heads(tensors: LayerTensors, layer: int, projection: str, head_dim: int) -> int:
    """Heads of a projection; 0 where the layer has no attention at all."""
    modules = [f"self_attn.{name}_proj" for name in "qkvo"]
    if all(tensors.name(layer, module) not in tensors.entries for module in modules):
        return 0
    rows = tensors.size(layer, f"self_attn.{projection}")
    if rows is None and projection == "q_proj":
        rows = tensors.size(layer, "self_attn.o_proj", 1)
    elif rows is None:
        rows = tensors.size(layer, "self_attn.v_proj")
    if rows is None or rows % head_dim or not rows:
        name = tensors.name(layer, f"self_attn.{projection}")
        problem = Problem(
            where=f"{file_of(tensors.directory, name)}: {shown_name(name)}",
            what="the rows of the projection are no whole number of heads",
            expected=f"a multiple of {head_dim} (head_dim)",
            found="no such matrix" if rows is None else str(rows),
            remedy="write the width of a head as head_dim into config.json",
        )
        raise ConfigurationError(problem)
    return rows // head_dim


def _ffn(tensors: LayerTensors, layer: int) -> int:
    """Width of the feed-forward part; 0 where the layer has none."""
    for module, axis in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
        size = tensors.size(layer, f"mlp.{module}", axis)
        if size is not None:
            return size
    return 0


def _correction(
    configuration: Configuration,
    key: str,
    declared: tuple[int, ...] | int | None,
    measured: tuple[int, ...],
) -> Iterator[str]:
    """A sentence where one declared number is not what the tensors have.

    Raises:
        ConfigurationError: A list of numbers is not.
    """
    if isinstance(declared, tuple) and declared != measured:
        what = "the list is not what the tensors have"
        raise configuration.refusal(
            what, key=key, expected=str(list(measured)), found=list(declared)
        )
    if isinstance(declared, int) and set(measured) != {declared}:
        shown = ", ".join(map(str, sorted(set(measured))))
        yield f"config.json says {key} = {declared}, the tensors have {shown}: theirs were written"
