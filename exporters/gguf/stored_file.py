"""Stored file: what a finished GGUF file holds, for what is said of one that a script has made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeship.exporters.gguf.blueprint import ModelFacts, TensorPlan
from edgeship.exporters.gguf.converter import ARCHITECTURE
from edgeship.exporters.gguf.file_types import FileType
from edgeship.exporters.gguf.forecast import MemoryForecast, forecast_memory
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.mixture import Assignment, is_quantizable
from edgeship.exporters.gguf.substitution import Substitution, fitting_kind
from edgeship.exporters.gguf.vocabulary.vendors import vendor

_EMBEDDING: Final = "token_embd.weight"
_HEAD: Final = "output.weight"


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file without its weights.

    Attributes:
        architecture: `general.architecture`.
        assignment: The kinds that its tensors have.
        weight_bytes: Of all tensors.
        facts: Sizes by its metadata; None where that does not describe attention in every layer,
            as of a state space model.
    """

    architecture: str
    assignment: Assignment
    weight_bytes: int
    facts: ModelFacts | None

    def forecast(self, context: int) -> MemoryForecast | None:
        """Memory on the board by the rules of a Llama's graph; None where nothing is known."""
        if self.facts is None:
            return None
        tokens = min(context, self.facts.context)
        found = forecast_memory((), {}, self.facts, context=tokens)
        return replace(found, weights=self.weight_bytes)


def read_stored_file(file: Path, file_type: FileType) -> StoredFile:
    """Read the header of a file that llama.cpp has quantized to `file_type`.

    Raises:
        RequirementMissing: gguf is not installed.
    """
    reader: Any = vendor("gguf").GGUFReader(file)
    fields = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("tokenizer.")
    }
    plans = {
        tensor.name: TensorPlan(
            name=tensor.name, shape=tuple(map(int, reversed(tensor.shape))), source=tensor.name
        )
        for tensor in reader.tensors
    }
    types = {tensor.name: str(tensor.tensor_type.name) for tensor in reader.tensors}
    kinds = {name: Kind(kind) for name, kind in types.items() if kind in set(Kind)}
    size_bytes = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    return StoredFile(
        architecture=str(fields[ARCHITECTURE]),
        assignment=_assignment(plans, kinds, file_type.kind, size_bytes),
        weight_bytes=size_bytes,
        facts=_facts(fields, plans),
    )


def _assignment(
    plans: Mapping[str, TensorPlan], kinds: Mapping[str, Kind], asked: Kind, size_bytes: int
) -> Assignment:
    weights = sum(plan.elements for plan in plans.values())
    substituted = tuple(_substitutions(plans, kinds, asked))
    saved = sum(
        plans[one.tensor].elements * (one.got.bits_per_weight - one.wanted.bits_per_weight)
        for one in substituted
    )
    return Assignment(
        kinds=kinds,
        substituted=substituted,
        matrices=sum(map(is_quantizable, plans.values())),
        bits_per_weight=8 * size_bytes / weights,
        nominal_bits_per_weight=(8 * size_bytes - saved) / weights,
    )


def _substitutions(
    plans: Mapping[str, TensorPlan], kinds: Mapping[str, Kind], asked: Kind
) -> Iterator[Substitution]:
    """What was wanted is told by what became of it, since no two kinds have the same fallback."""
    for name, got in kinds.items():
        plan = plans[name]
        if got in (asked, Kind.F32, Kind.BF16) or not is_quantizable(plan):
            continue
        wanted = [
            kind
            for kind in (asked, *Kind)
            if kind.is_quantized and kind is not got and fitting_kind(kind, plan.columns) is got
        ]
        if wanted:
            width = -(-plan.columns // wanted[0].block) * wanted[0].block
            yield Substitution(
                tensor=name, wanted=wanted[0], got=got, columns=plan.columns, width=width
            )


def _facts(fields: Mapping[str, Any], plans: Mapping[str, TensorPlan]) -> ModelFacts | None:
    """Source: gguf-py/gguf/constants.py, `Keys`; a number stands for all layers alike."""
    prefix = fields[ARCHITECTURE]

    def value(key: str, otherwise: object = None) -> Any:  # noqa: ANN401 - numbers and lists
        return fields.get(f"{prefix}.{key}", otherwise)

    layers, hidden = value("block_count"), value("embedding_length")
    context, embedding = value("context_length"), plans.get(_EMBEDDING)
    heads = _by_layer(value("attention.head_count"), layers)
    kv_heads = _by_layer(value("attention.head_count_kv", value("attention.head_count")), layers)
    widths = _by_layer(value("feed_forward_length"), layers)
    if not (layers and hidden and context and embedding and heads and kv_heads and widths):
        return None
    if not max(heads):
        return None
    return ModelFacts(
        layers=layers,
        hidden=hidden,
        vocabulary=embedding.shape[0],
        context=context,
        head_dim=value("attention.key_length", hidden // max(heads)),
        heads=heads,
        kv_heads=kv_heads,
        ffn=widths,
        ties_embeddings=_HEAD not in plans,
        is_causal=value("attention.causal", True) is not False,
        pooling=value("pooling_type"),
    )


def _by_layer(value: int | list[int] | None, layers: int | None) -> tuple[int, ...]:
    """A number for each layer; empty where there is none."""
    if value is None or layers is None:
        return ()
    found = (value,) * layers if isinstance(value, int) else tuple(value)
    return found if len(found) == layers else ()
