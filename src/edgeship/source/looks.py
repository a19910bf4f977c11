"""Looks: what a checkpoint appears to have gone through, never surer than the evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgeship.source.architecture import Architecture, weight_entries
from edgeship.source.element import ElementType
from edgeship.source.hf_config import HfConfig
from edgeship.source.sparsity import mask_signs, width_signs, zero_signs
from edgeship.source.tensor_facts import TensorFacts
from edgeship.source.tensor_name import is_quantizer_state, shown_name
from edgeship.source.tensor_source import TensorEntry

_INT8: Final = (ElementType.I8, ElementType.U8)
_PACKED: Final = (ElementType.I32, ElementType.U32, ElementType.U8)
_FLOAT8: Final = (ElementType.F8_E4M3, ElementType.F8_E5M2)


class Trait(StrEnum):
    """What a checkpoint may have gone through; FULL is none of the others."""

    PRUNED = "pruned"
    QUANTIZED = "quantized"
    DISTILLED = "distilled"
    FULL = "full"


class Certainty(StrEnum):
    """How far the evidence goes."""

    IS = "is"
    LOOKS = "looks"
    MAY_BE = "may be"
    NO_SIGN = "no sign of"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One claim with its evidence, a clause each."""

    trait: Trait
    certainty: Certainty
    evidence: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The claim by name."""
        return {
            "trait": str(self.trait),
            "certainty": str(self.certainty),
            "evidence": list(self.evidence),
        }


def find_looks(
    facts: Sequence[TensorFacts],
    architecture: Architecture,
    config: HfConfig | None,
    *,
    distillation: Look | None = None,
) -> tuple[Look, ...]:
    """One look for each trait; `distillation` is what a teacher shows, where one is known."""
    pruned = _pruned(facts, architecture)
    quantized = _quantized(facts, config)
    distilled = distillation or _distilled(config)
    return (pruned, quantized, distilled, _full(facts, pruned, quantized))


def _pruned(facts: Sequence[TensorFacts], architecture: Architecture) -> Look:
    masks, zeros = mask_signs(facts), zero_signs(facts)
    widths = width_signs([item.entry for item in facts], architecture.groups)
    if masks:
        certainty = Certainty.IS
    elif zeros.are_strong or widths.are_strong:
        certainty = Certainty.LOOKS
    else:
        weak = zeros.clauses or widths.clauses
        certainty = Certainty.MAY_BE if weak else Certainty.NO_SIGN
    nothing = "no masks, hardly any exact zeros, no odd widths"
    evidence = (*masks, *zeros.clauses, *widths.clauses) or (nothing,)
    return Look(trait=Trait.PRUNED, certainty=certainty, evidence=evidence)


def _quantized(facts: Sequence[TensorFacts], config: HfConfig | None) -> Look:
    sure, strong, weak = [], [], []
    if config is not None and config.quantization is not None:
        keys = ("quant_method", "bits", "load_in_4bit", "load_in_8bit", "fmt", "group_size")
        said = [f"{key} {config.quantization[key]}" for key in keys if key in config.quantization]
        sure.append(f"config.json has a quantization_config: {', '.join(said) or 'no details'}")
    weights = weight_entries(item.entry for item in facts)
    for elements, what in ((_INT8, "8-bit integers"), (_FLOAT8, "8-bit floats")):
        count = sum(entry.element in elements for entry in weights)
        if count:
            strong.append(f"{count} of {len(weights)} weights are stored as {what}")
    packed = [
        item.entry
        for item in facts
        if item.entry.element in _PACKED and item.entry.name.endswith(("qweight", "weight_packed"))
    ]
    if packed:
        named = f"tensors of packed integers ({len(packed)}): {shown_name(packed[0].name)}"
        strong.append(f"{named}, each counted as one parameter")
    states = [item.entry.name for item in facts if is_quantizer_state(item.entry.name)]
    if states:
        weak.append(f"tensors with a quantizer's names ({len(states)}): {shown_name(states[0])}")
    if sure:
        certainty = Certainty.IS
    elif strong:
        certainty = Certainty.LOOKS
    else:
        certainty = Certainty.MAY_BE if weak else Certainty.NO_SIGN
    evidence = tuple([*sure, *strong, *weak])
    nothing = f"all weights are {_types(weights)}, no scales or zero points"
    return Look(trait=Trait.QUANTIZED, certainty=certainty, evidence=evidence or (nothing,))


def _distilled(config: HfConfig | None) -> Look:
    """Without a teacher: only what the configuration calls it."""
    names = [] if config is None else [config.model_type, config.origin, config.architecture]
    named = next((name for name in names if name and "distil" in name.lower()), None)
    if named is not None:
        evidence = (f"config.json names it {named}", "nothing of it is seen in the weights alone")
        return Look(trait=Trait.DISTILLED, certainty=Certainty.LOOKS, evidence=evidence)
    unseen = ("it cannot be seen in the weights alone: give the teacher to compare with",)
    return Look(trait=Trait.DISTILLED, certainty=Certainty.NO_SIGN, evidence=unseen)


def _full(facts: Sequence[TensorFacts], pruned: Look, quantized: Look) -> Look:
    weights = weight_entries(item.entry for item in facts)
    others = {pruned.certainty, quantized.certainty}
    evidence = (f"dense weights of {_types(weights)}",)
    if others == {Certainty.NO_SIGN}:
        return Look(trait=Trait.FULL, certainty=Certainty.LOOKS, evidence=evidence)
    if others <= {Certainty.NO_SIGN, Certainty.MAY_BE}:
        return Look(trait=Trait.FULL, certainty=Certainty.MAY_BE, evidence=evidence)
    why = [look.trait for look in (pruned, quantized) if look.certainty is not Certainty.NO_SIGN]
    evidence = (f"it {' and '.join(f'looks {trait}' for trait in why)}",)
    return Look(trait=Trait.FULL, certainty=Certainty.NO_SIGN, evidence=evidence)


def _types(entries: Iterable[TensorEntry]) -> str:
    return ", ".join(sorted({str(entry.element) for entry in entries})) or "no type"
