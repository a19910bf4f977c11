"""Destination: what a target could take a checkpoint as, and what its weights would weigh."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from edgeship.source.architecture import ArchitectureKind, is_parameter, is_weight
from edgeship.source.looks import Certainty, Trait
from edgeship.source.stored_checkpoint import StoredKind
from edgeship.source.survey import Survey
from edgeship.source.tensor_name import is_embedding
from edgeship.source.tensor_source import TensorEntry
from edgeship.targets import Target
from edgeship.vocabulary import Format

_Q4_0, _Q4_K, _Q5_0, _Q6_K = Fraction(9, 2), Fraction(9, 2), Fraction(11, 2), Fraction(105, 16)
"""Bits per weight: 18 bytes for 32 weights, 144 for 256, 22 for 32, 210 for 256
(ggml-common.h, block_q4_0, block_q4_K, block_q5_0, block_q6_K)."""
_Q4_K_MIX: Final = Fraction(24, 5)
"""Q4_K_M has Q6_K in half of the attn_v and ffn_down (llama-quant.cpp, use_more_bits), which are
about 0.3 of a Llama's weights: 4.5 + 0.5 x 0.3 x 2.06 = 4.8; with the table at Q6_K, whole files
have about 4.85."""
_GGUF_BLOCK: Final = 32
_K_BLOCK: Final = 256
_TIGHT: Final = 0.5
"""Share of the memory from which on weights are tight: the system, the runtime and activations
come on top. A choice."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """One format and precision on one target.

    Attributes:
        memory_bytes: The board's.
        weight_bytes: An estimate of the weights alone, without the format's own overhead.
        board_obstacle: Why the board takes none of the format; None where it does.
        obstacle: Why this checkpoint cannot become the format; None where it can.
        needs: What has to come with the checkpoint, like a factory.
        is_makeable: Whether this version can make the format.
    """

    target: str
    format: Format
    precision: str
    memory_bytes: int
    weight_bytes: int
    board_obstacle: str | None
    obstacle: str | None
    needs: str | None
    is_makeable: bool

    @property
    def memory_share(self) -> float:
        """What the weights take of the board's memory."""
        return self.weight_bytes / self.memory_bytes

    @property
    def fit(self) -> str:
        """Whether the weights find room: `fits`, `tight` or `too large`."""
        if self.memory_share > 1:
            return "too large"
        return "tight" if self.memory_share > _TIGHT else "fits"

    def to_json(self) -> dict[str, object]:
        """Every field and the fit."""
        return {
            "target": self.target,
            "format": str(self.format),
            "precision": self.precision,
            "memory_bytes": self.memory_bytes,
            "weight_bytes_estimate": self.weight_bytes,
            "memory_share": self.memory_share,
            "fit": self.fit,
            "board_obstacle": self.board_obstacle,
            "obstacle": self.obstacle,
            "needs": self.needs,
            "is_makeable": self.is_makeable,
        }


def find_destinations(
    survey: Survey, targets: Iterable[Target], makeable: Collection[Format]
) -> tuple[Destination, ...]:
    """For each target and format the default precision, and for the kit's engines each of them.

    Args:
        survey: Of the checkpoint.
        targets: Rows of the catalogue.
        makeable: Formats that this version can make.
    """
    weights = estimate_weights(survey)
    return tuple(
        Destination(
            target=target.name,
            format=format_,
            precision=precision,
            memory_bytes=target.memory_bytes,
            weight_bytes=weights[precision],
            board_obstacle=_board_obstacle(target, format_),
            obstacle=_obstacle(survey, format_),
            needs=_needs(survey, format_),
            is_makeable=format_ in makeable,
        )
        for target in targets
        for format_ in Format
        for precision in _precisions(target, format_, weights)
    )


def estimate_weights(survey: Survey) -> dict[str, int]:
    """Bytes of the parameters by precision; vectors keep 4 bytes where weights shrink below 2."""
    entries = [item.entry for item in survey.unique_tensors if is_parameter(item.entry)]
    weights = [entry for entry in entries if is_weight(entry)]
    everything = sum(entry.elements for entry in entries)
    inside = sum(entry.elements for entry in weights)
    vectors = 4 * (everything - inside)
    return {
        "fp32": 4 * everything,
        "fp16": 2 * everything,
        "int8": inside + vectors,
        "q4_0": _gguf_bytes(weights, _Q4_0) + vectors,
        "q4_k_m": _gguf_bytes(weights, _Q4_K_MIX) + vectors,
    }


def fallback_weights(survey: Survey) -> tuple[int, int]:
    """How many weights have rows that K-quants cannot cut into blocks of 256, and of how many."""
    weights = [item.entry for item in survey.unique_tensors if is_weight(item.entry)]
    return sum(_row(entry) % _K_BLOCK != 0 for entry in weights), len(weights)


def _gguf_bytes(weights: Sequence[TensorEntry], bits: Fraction) -> int:
    """The largest table (embedding or head) is Q6_K; rows that do not divide fall back.

    Source: llama-quant.cpp: output.weight, or token_embd.weight when tied, is Q6_K; Q4_K becomes
    Q5_0 and Q6_K becomes Q8_0 where rows are no multiples of 256, both F16 where not of 32.
    """
    tables = [entry for entry in weights if is_embedding(entry.name)]
    table = max(tables, key=lambda entry: entry.elements, default=None)
    total = Fraction(0)
    for entry in weights:
        row = _row(entry)
        if row % _GGUF_BLOCK:
            width = Fraction(16)
        elif entry is table:
            width = _Q6_K if row % _K_BLOCK == 0 else Fraction(17, 2)
        elif row % _K_BLOCK and bits == _Q4_K_MIX:
            width = _Q5_0
        else:
            width = bits
        total += entry.elements * width
    return int(total / 8)


def _row(entry: TensorEntry) -> int:
    return entry.shape[-1]


def _precisions(target: Target, format_: Format, known: Mapping[str, int]) -> Iterator[str]:
    """The board's defaults; of a kit, what its GPU computes in; of a format it lacks, fp32."""
    if format_ is Format.TENSORRT and target.gpu is not None:
        yield from target.gpu.precisions
        return
    named = [item for item in target.formats[format_].precisions if item in known]
    yield from named or ["fp32"]


def _board_obstacle(target: Target, format_: Format) -> str | None:
    facts = target.formats[format_]
    return None if facts.precisions else facts.reason or "the board takes none of it"


def _obstacle(survey: Survey, format_: Format) -> str | None:
    quantized = next(look for look in survey.looks if look.trait is Trait.QUANTIZED)
    if quantized.certainty in (Certainty.IS, Certainty.LOOKS):
        return "it is quantized already: start from the float checkpoint"
    kind = survey.architecture.kind
    if format_ is Format.GGUF:
        if survey.kind is not StoredKind.HUGGING_FACE:
            return "gguf needs a Hugging Face directory"
        is_language = survey.architecture.vocabulary is not None
        if kind not in (ArchitectureKind.CAUSAL_LM, ArchitectureKind.ENCODER) or not is_language:
            return f"gguf holds language models; this is a {kind}"
    elif survey.kind is StoredKind.HUGGING_FACE and kind is ArchitectureKind.CAUSAL_LM:
        return "a causal language model goes to gguf"
    elif kind is ArchitectureKind.ENCODER_DECODER:
        return "encoders with decoders have no way yet"
    return None


def _needs(survey: Survey, format_: Format) -> str | None:
    if survey.kind is StoredKind.HUGGING_FACE or format_ is Format.GGUF:
        return None
    return "a factory that builds the module"
