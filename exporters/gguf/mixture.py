"""Mixture: which kind every tensor has in a file of a given type, by llama.cpp's own rules.

Types depend on names and shapes alone, so the whole layout of a file is known before any weight is
read. Source of every rule: src/llama-quant.cpp of llama.cpp 0.5.0 (0c1e57098), as far as it
concerns the architectures llama, qwen2, qwen3, bert and deci, which have no experts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.exporters.gguf.file_types import file_type_named
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.substitution import Substitution, substitution_of

if TYPE_CHECKING:
    from edgeship.exporters.gguf.blueprint import ModelFacts, TensorPlan

_KEPT: Final = frozenset({"position_embd.weight", "token_types.weight"})
"""Matrices beside norms and gates of experts that are never quantized."""
_VALUES: Final = ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight")
"""The part of the attention that suffers most from few bits."""
_LARGE_LAYERS: Final = 80
"""Blocks of the models that llama.cpp takes for 70 B ones, where 8 heads share one value matrix."""
_LARGE_ALWAYS: Final = frozenset({"qwen2", "deci"})
"""Architectures that are taken for 70 B ones by their blocks alone; llama if it shares heads."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The kinds of a file's tensors.

    Attributes:
        kinds: By tensor, in the order of the file.
        substituted: Tensors that are not of the kind that the rules ask for, in that order.
        matrices: Number of tensors that the file type is about; the others stay F32.
        bits_per_weight: Over all tensors, as llama-quantize counts it.
        nominal_bits_per_weight: The same if nothing had been substituted.
    """

    kinds: Mapping[str, Kind]
    substituted: tuple[Substitution, ...]
    matrices: int
    bits_per_weight: float
    nominal_bits_per_weight: float


def assign_kinds(
    tensors: Sequence[TensorPlan],
    facts: ModelFacts,
    file_type: str,
    has_importance: bool,
    *,
    architecture: str,
) -> Assignment:
    """Give every tensor the kind that llama-quantize would give it.

    Args:
        tensors: Of the whole file, in any order.
        facts: Of the same model; layers and heads count.
        file_type: Such as `q4_k_m`.
        has_importance: Whether it is quantized with an importance matrix, which changes rules.
        architecture: `general.architecture`.

    Raises:
        UnknownName: There is no such file type.
    """
    ordered = sorted(tensors, key=lambda tensor: file_order(tensor.name))
    rules = _Rules(ordered, facts, file_type, has_importance, architecture)
    wanted = {
        tensor.name: rules.wanted(tensor.name) if is_quantizable(tensor) else Kind.F32
        for tensor in ordered
    }
    found = (substitution_of(one.name, wanted[one.name], one.columns) for one in ordered)
    substituted = tuple(one for one in found if one)
    kinds = wanted | {one.tensor: one.got for one in substituted}
    return Assignment(
        kinds=kinds,
        substituted=substituted,
        matrices=sum(map(is_quantizable, ordered)),
        bits_per_weight=_bits_per_weight(ordered, kinds),
        nominal_bits_per_weight=_bits_per_weight(ordered, wanted),
    )


def file_order(name: str) -> tuple[int, str]:
    """Sort key of llama-quantize: what belongs to no block first, then block by block, by name.

    Source: src/llama-model-loader.h, `weight_name_comparer`.
    """
    block = re.match(r"blk\.(\d+)\.", name)
    return (int(block[1]) if block else -1, name)


def is_quantizable(tensor: TensorPlan) -> bool:
    """Whether the file type is about this tensor; the others stay F32.

    ggml does not count leading axes of 1, so a matrix of one row is a vector to it.
    """
    return (
        math.prod(tensor.shape[:-1]) > 1
        and tensor.name.endswith("weight")
        and not tensor.name.endswith(("_norm.weight", "ffn_gate_inp.weight"))
        and tensor.name not in _KEPT
    )


class _Rules:
    """Asked for the kinds in the order of the file, since some rules count what went before."""

    def __init__(
        self,
        tensors: Sequence[TensorPlan],
        facts: ModelFacts,
        file_type: str,
        has_importance: bool,
        architecture: str,
    ) -> None:
        names = [tensor.name for tensor in tensors]
        self._type = file_type_named(file_type)
        self._has_importance = has_importance
        self._has_head = "output.weight" in names
        self._value_count = sum(map(_is_value, names))
        self._layers = facts.layers
        self._queries_per_key = _queries_per_key(facts)
        self._is_large = _is_large(architecture, facts)
        self._values_seen = 0
        self._downs_seen = 0

    def wanted(self, name: str) -> Kind:
        """Kind of this matrix if its rows are made of whole blocks."""
        if self._type.kind is Kind.F16:
            return Kind.F16
        if name == ("output.weight" if self._has_head else "token_embd.weight"):
            return Kind.Q8_0 if self._type.kind is Kind.Q8_0 else Kind.Q6_K
        if _is_value(name):
            self._values_seen += 1
            return self._value_kind(self._values_seen - 1)
        if "ffn_down" in name:
            self._downs_seen += 1
            return self._down_kind(self._downs_seen - 1)
        return self._type.kind

    def _value_kind(self, index: int) -> Kind:
        kind = self._type.kind
        match self._type.name:
            case "iq4_nl" | "iq4_xs" if self._queries_per_key >= 4:
                kind = Kind.Q5_K
            case "q4_k_m" | "q5_k_m" if _is_sensitive(index, self._value_count):
                kind = Kind.Q6_K
            case "q4_k_s" if index < 4:
                kind = Kind.Q5_K
        return Kind.Q5_K if self._is_large and kind is Kind.Q4_K else kind

    def _down_kind(self, index: int) -> Kind:
        is_early = index < self._layers // 8
        match self._type.name:
            case "q4_k_m" | "q5_k_m" if _is_sensitive(index, self._layers):
                return Kind.Q6_K
            case "iq4_nl" | "iq4_xs" if is_early and not self._has_importance:
                return Kind.Q5_K
            case "q4_k_s" if is_early:
                return Kind.Q5_K
            case "q4_0" if is_early and self._has_importance:
                return Kind.Q4_1
        return self._type.kind


def _is_value(name: str) -> bool:
    return any(part in name for part in _VALUES)


def _is_sensitive(index: int, count: int) -> bool:
    """The first and last eighth, and every third between: `use_more_bits`."""
    eighth = count // 8
    return index < eighth or index >= 7 * count // 8 or (index - eighth) % 3 == 2


def _queries_per_key(facts: ModelFacts) -> int:
    """Query heads that share a key head in the first block; 0 where it has no attention."""
    return facts.heads[0] // facts.kv_heads[0] if facts.kv_heads[0] else 0


def _is_large(architecture: str, facts: ModelFacts) -> bool:
    if facts.layers != _LARGE_LAYERS:
        return False
    shares_heads = facts.heads[0] != facts.kv_heads[0]
    return architecture in _LARGE_ALWAYS or (architecture == "llama" and shares_heads)


def _bits_per_weight(tensors: Sequence[TensorPlan], kinds: Mapping[str, Kind]) -> float:
    """A row that no block divides counts as if one did, so that it can be asked of any kind."""
    bits = sum(tensor.elements * kinds[tensor.name].bits_per_weight for tensor in tensors)
    return bits / sum(tensor.elements for tensor in tensors)
