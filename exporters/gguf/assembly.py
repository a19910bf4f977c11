"""Assembly: a checkpoint's blueprint, vocabulary and types put together into a file's contents."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.exporters.gguf.architectures import read_blueprint
from edgeship.exporters.gguf.blueprint import Blueprint, TensorPlan, closing_metadata
from edgeship.exporters.gguf.fast import fast_kernels
from edgeship.exporters.gguf.file_types import file_type_named
from edgeship.exporters.gguf.forecast import MemoryForecast, forecast_memory
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.library import Floats, Ggml
from edgeship.exporters.gguf.mixture import Assignment, assign_kinds
from edgeship.exporters.gguf.stream import Contents, write_gguf
from edgeship.exporters.gguf.vocabulary import Proof, Vocabulary, read_vocabulary
from edgeship.source.stored_checkpoint import open_checkpoint
from edgeship.story import Progress, ignore_progress

if TYPE_CHECKING:
    from edgeship.calibration.importance import Importance

MOST_CONTEXT: Final = 4096
"""Tokens that memory is forecast for where nobody says: a choice, for boards."""


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """All that is known of a file before a weight is read."""

    blueprint: Blueprint
    vocabulary: Vocabulary
    assignment: Assignment
    file_type: str

    @property
    def contents(self) -> Contents:
        """What is written."""
        number = file_type_named(self.file_type).number
        return Contents(
            metadata=(
                *self.blueprint.metadata,
                *self.vocabulary.metadata,
                *closing_metadata(number),
            ),
            tensors=self.blueprint.tensors,
            kinds=self.assignment.kinds,
        )

    def forecast(self, context: int | None) -> MemoryForecast:
        """Memory on the board at `context` tokens; None: the model's own, at most 4,096."""
        facts = self.blueprint.facts
        return forecast_memory(
            self.blueprint.tensors,
            self.assignment.kinds,
            facts,
            context=min(context or MOST_CONTEXT, facts.context),
        )


def assemble(directory: Path, file_type: str, *, has_importance: bool) -> Assembly:
    """Read what the directory says, headers alone.

    Raises:
        ConfigurationError: The directory is damaged, or of another architecture.
        ExportFailed: llama.cpp has no such tokenizer.
    """
    blueprint = read_blueprint(directory)
    vocabulary = read_vocabulary(directory, blueprint.architecture, blueprint.facts.vocabulary)
    assignment = assign_kinds(
        blueprint.tensors,
        blueprint.facts,
        file_type,
        has_importance,
        architecture=blueprint.architecture,
    )
    return Assembly(
        blueprint=blueprint, vocabulary=vocabulary, assignment=assignment, file_type=file_type
    )


def write_assembly(
    assembly: Assembly,
    directory: Path,
    destination: Path,
    *,
    importance: Importance | None,
    threads: int,
    progress: Progress = ignore_progress,
) -> int:
    """Write the file in one pass over the checkpoint; its size in bytes.

    `progress` is told (done, all) in weights.

    Raises:
        ConfigurationError: The checkpoint does not hold the tensors.
        ExportFailed: A weight is no finite number, or the disk is full.
    """
    contents = assembly.contents
    means = importance_means(importance)
    kernels = fast_kernels(_weights_without(contents.tensors, contents.kinds, means))
    with ExitStack() as stack:
        opened = stack.enter_context(open_checkpoint(directory))
        return write_gguf(
            opened.source,
            contents,
            destination,
            threads=threads,
            importance=means,
            ggml=Ggml(kernels.kernels),
            on_progress=progress,
        )


def importance_means(importance: Importance | None) -> dict[str, Floats]:
    """float32[columns] by tensor; empty where there is no table."""
    entries = {} if importance is None else importance.entries
    return {name: sums.means() for name, sums in entries.items()}


def proof_notes(proof: Proof) -> tuple[str, ...]:
    """What was compared, and what llama.cpp does otherwise."""
    compared = f"{proof.texts} texts ({proof.tokens} tokens)"
    return (f"tokens as llama.cpp makes them equal the tokenizer's on {compared}", *proof.notes)


def _weights_without(
    tensors: tuple[TensorPlan, ...], kinds: Mapping[str, Kind], importance: Mapping[str, object]
) -> dict[Kind, int]:
    """Number of weights of each kind that are quantized without importance."""
    found: dict[Kind, int] = {}
    for tensor in tensors:
        if tensor.name not in importance:
            kind = kinds[tensor.name]
            found[kind] = found.get(kind, 0) + tensor.elements
    return found
