"""Architecture: what a checkpoint's configuration, or else its names and shapes, say it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgeship.source.element import ElementType
from edgeship.source.hf_config import HfConfig
from edgeship.source.tensor_name import BlockGroup, block_groups, is_embedding, names_a_parameter
from edgeship.source.tensor_source import TensorEntry

_FFN_ENDS: Final = (
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.fc1.weight",
    "intermediate.dense.weight",
    "ffn.lin1.weight",
)
"""First projections of the feed-forward part in transformers' Llama, ViT, BERT and DistilBERT."""


class ArchitectureKind(StrEnum):
    """The coarse kind, by what most weights are."""

    CAUSAL_LM = "causal language model"
    ENCODER = "encoder"
    ENCODER_DECODER = "encoder with decoder"
    CONVOLUTIONAL = "convolutional net"
    TRANSFORMER = "transformer"
    LINEAR = "linear layers"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the model is, with None for what cannot be told.

    Attributes:
        source: Where the numbers come from: "config.json", or "names and shapes".
        layers: Repeated blocks, of all groups together.
        hidden: Width of the residual stream; without a configuration the most common width.
        widths: Output widths of the convolutions, ascending, each once.
        groups: Groups of repeated blocks.
        ties_embeddings: Whether the configuration says that the head is the embedding.
        convolutions: Number of weights with three axes or more.
        linears: Number of weights with two axes, embeddings not counted.
        disagreements: Where the configuration and the shapes contradict each other.
    """

    kind: ArchitectureKind
    source: str
    model_type: str | None
    class_name: str | None
    layers: int | None
    hidden: int | None
    heads: int | None
    kv_heads: int | None
    ffn: int | None
    vocabulary: int | None
    groups: tuple[BlockGroup, ...]
    widths: tuple[int, ...]
    ties_embeddings: bool
    convolutions: int
    linears: int
    disagreements: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Every field; a group by its prefix and indices."""
        return {
            "kind": str(self.kind),
            "source": self.source,
            "model_type": self.model_type,
            "class_name": self.class_name,
            "layers": self.layers,
            "hidden": self.hidden,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "ffn": self.ffn,
            "vocabulary": self.vocabulary,
            "groups": [
                {"prefix": group.prefix, "indices": list(group.indices)} for group in self.groups
            ],
            "widths": list(self.widths),
            "ties_embeddings": self.ties_embeddings,
            "convolutions": self.convolutions,
            "linears": self.linears,
            "disagreements": list(self.disagreements),
        }


def find_architecture(entries: Mapping[str, TensorEntry], config: HfConfig | None) -> Architecture:
    """The architecture by `config` where there is one, held against the tensors' shapes."""
    groups = tuple(group for group in block_groups(entries) if group.is_uniform)
    weights = weight_entries(entries.values())
    embeddings = [entry for entry in weights if is_embedding(entry.name)]
    convolutions = sum(len(entry.shape) > 2 for entry in weights)
    linears = sum(len(entry.shape) == 2 for entry in weights) - len(embeddings)
    widths = tuple(sorted({entry.shape[0] for entry in weights if len(entry.shape) > 2}))
    counts = (convolutions, linears, len(embeddings))
    seen = sum(len(group.indices) for group in groups) or None
    table = max(embeddings, key=lambda entry: entry.shape[0], default=None)
    if config is None:
        return Architecture(
            kind=_kind_of(counts),
            source="names and shapes",
            model_type=None,
            class_name=None,
            layers=seen,
            hidden=_common_width(weights),
            heads=None,
            kv_heads=None,
            ffn=next(iter(ffn_widths(weights)), None),
            vocabulary=None if table is None else table.shape[0],
            groups=groups,
            widths=widths,
            ties_embeddings=False,
            convolutions=convolutions,
            linears=linears,
            disagreements=(),
        )
    return Architecture(
        kind=_kind_by_class(config, counts),
        source="config.json",
        model_type=config.model_type,
        class_name=config.architecture,
        layers=config.layers or seen,
        hidden=config.hidden or _common_width(weights),
        heads=config.heads,
        kv_heads=config.kv_heads,
        ffn=config.ffn,
        vocabulary=config.vocabulary,
        groups=groups,
        widths=widths,
        ties_embeddings=config.ties_embeddings,
        convolutions=convolutions,
        linears=linears,
        disagreements=tuple(_disagreements(config, groups, table, weights)),
    )


def is_parameter(entry: TensorEntry) -> bool:
    """Whether training changes it, by its name and type: indices, masks and counters stay.

    A `bias` of several axes that is square is the causal mask that GPT-2 checkpoints hold.
    """
    is_mask = entry.name.endswith(".bias") and len(set(entry.shape[-2:])) == 1 < len(entry.shape)
    is_index = entry.element in (ElementType.I64, ElementType.BOOL)
    return names_a_parameter(entry.name) and not is_mask and not is_index


def is_weight(entry: TensorEntry) -> bool:
    """Whether it is multiplied with activations or looked up: a parameter of two axes or more."""
    return len(entry.shape) > 1 and is_parameter(entry)


def weight_entries(entries: Iterable[TensorEntry]) -> list[TensorEntry]:
    """Those of `entries` that are weights."""
    return [entry for entry in entries if is_weight(entry)]


def ffn_widths(weights: Iterable[TensorEntry]) -> list[int]:
    """Widths of feed-forward parts, ascending, each once, where the names tell them."""
    widths = {entry.shape[0] for entry in weights if entry.name.endswith(_FFN_ENDS)}
    return sorted(widths)


def _kind_by_class(config: HfConfig, counts: tuple[int, int, int]) -> ArchitectureKind:
    if config.is_causal_lm:
        return ArchitectureKind.CAUSAL_LM
    if config.is_encoder:
        is_convolutional = counts[0] > counts[1]
        return ArchitectureKind.CONVOLUTIONAL if is_convolutional else ArchitectureKind.ENCODER
    if config.architecture is not None:
        return ArchitectureKind.ENCODER_DECODER
    return _kind_of(counts)


def _kind_of(counts: tuple[int, int, int]) -> ArchitectureKind:
    """By numbers of convolutions, linear layers and embeddings."""
    convolutions, linears, embeddings = counts
    if convolutions > linears:
        return ArchitectureKind.CONVOLUTIONAL
    if embeddings and linears:
        return ArchitectureKind.TRANSFORMER
    return ArchitectureKind.LINEAR if linears else ArchitectureKind.UNKNOWN


def _common_width(weights: Sequence[TensorEntry]) -> int | None:
    """The width that most weights have at one side or the other, the larger of equals."""
    counts = Counter(width for entry in weights for width in set(entry.shape[:2]))
    return max(counts, key=lambda width: (counts[width], width), default=None)


def _disagreements(
    config: HfConfig,
    groups: Sequence[BlockGroup],
    table: TensorEntry | None,
    weights: Sequence[TensorEntry],
) -> Iterator[str]:
    seen = max((len(group.indices) for group in groups), default=None)
    if config.layers is not None and seen is not None and seen != config.layers:
        yield f"config.json says {config.layers} layers, the tensors are of {seen}"
    if table is not None and len(table.shape) == 2:
        rows, columns = table.shape
        if config.vocabulary is not None and rows != config.vocabulary:
            yield f"config.json says a vocabulary of {config.vocabulary}, {table.name} has {rows}"
        if config.hidden is not None and columns != config.hidden:
            yield f"config.json says a hidden size of {config.hidden}, {table.name} has {columns}"
    widths = ffn_widths(weights)
    if config.ffn is not None and widths and widths != [config.ffn]:
        found = ", ".join(map(str, widths[:6]))
        yield f"config.json says feed-forward parts of {config.ffn}, the tensors have {found}"
