"""Importance forecast: the memory that making an importance matrix takes on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.source.encoder import is_causal
from edgeship.source.hf_config import CONFIG, read_hf_config
from edgeship.source.stored_checkpoint import open_checkpoint

_LIBRARIES_BYTES: Final = 700 << 20
"""Of a process that has imported torch, transformers and gguf (measured: 452 MiB, and 618 MiB in a
fresh environment, where files are read and compiled for the first time)."""
_BLOCK_BYTES: Final = 64 << 20
"""Of one widened block of weights at most; torch's products keep about as much again."""
_ACTIVATIONS: Final = 16
"""Rows of the hidden width, and as many fourths of the inner one, that live in a layer."""
_SCORES: Final = 4
"""Copies of the attention's scores: before and after the mask, softmax, and its result."""


@dataclass(frozen=True, kw_only=True)
class ImportanceForecast:
    """Memory of the process, in bytes.

    Attributes:
        held: Libraries, activations, and of an encoder its weights as float32.
        mapped: The weights of a causal model in their file: the system drops and reads them again
            where memory is short.
    """

    held: int
    mapped: int


def forecast_importance(directory: Path, chunk_tokens: int) -> ImportanceForecast:
    """Memory that the process will take, from the headers alone.

    Raises:
        ConfigurationError: The directory cannot be read.
    """
    config = read_hf_config(directory / CONFIG)
    with open_checkpoint(directory) as stored:
        entries = list(stored.source.entries.values())
    hidden, heads = config.hidden or 0, config.heads or 0
    rows = _ACTIVATIONS * (hidden + (config.ffn or 4 * hidden) // 4) * chunk_tokens
    activations = 4 * (rows + _SCORES * heads * chunk_tokens**2)
    held = _LIBRARIES_BYTES + activations
    if is_causal(directory):
        block = min(_BLOCK_BYTES, 4 * max(entry.elements for entry in entries))
        mapped = sum(entry.size_bytes for entry in entries)
        return ImportanceForecast(held=held + 2 * block, mapped=mapped)
    return ImportanceForecast(held=held + 4 * sum(entry.elements for entry in entries), mapped=0)
