"""Way round: a file by llama.cpp's own script and quantizer, for what this package cannot read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.artifact import Requirements, RuntimeNeed
from edgeship.digests import file_sha256
from edgeship.errors import ConfigurationError
from edgeship.exporters.gguf.assembly import MOST_CONTEXT, importance_means, proof_notes
from edgeship.exporters.gguf.converter import convert, converted_vocabulary, converter_sha256
from edgeship.exporters.gguf.file_types import FileType, file_type_named
from edgeship.exporters.gguf.forecast import memory_note
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.quantizer import quantize_file
from edgeship.exporters.gguf.stored_file import StoredFile, read_stored_file
from edgeship.exporters.gguf.substitution import refuse_substitutions, substitution_notes
from edgeship.exporters.gguf.vocabulary import prove_vocabulary
from edgeship.exporters.protocol import Lowered, Payload, Recipe, Source
from edgeship.vocabulary import Format, Role

if TYPE_CHECKING:
    from edgeship.calibration.importance import Importance
    from edgeship.exporters.gguf.library import Floats
    from edgeship.exporters.gguf.vocabulary import Vocabulary
    from edgeship.story import Progress
    from edgeship.targets import Target

RUNTIME: Final = "llama.cpp"
_LOWERED_NAME: Final = "converter.json"
_FLOAT_NAME: Final = "float.gguf"
_WITHOUT_SEARCH: Final = (Kind.F16, Kind.Q8_0)
"""Kinds that importance does not change."""


def lower_converted(source: Source, script: Path, directory: Path) -> Lowered:
    """The checkpoint itself; the vocabulary that the script makes is proven before any weight.

    Raises:
        ExportFailed: The script does not know the model, or llama.cpp cuts texts otherwise.
    """
    architecture, vocabulary = converted_vocabulary(script, source.checkpoint, directory)
    notes = _vocabulary_notes(vocabulary, architecture, source)
    digest = converter_sha256(script)
    file = directory / _LOWERED_NAME
    value = {"architecture": architecture, "converter": digest, "tokens": vocabulary.size}
    file.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return Lowered(
        file=file,
        sha256=file_sha256(file),
        contract=source.model.contract,
        runtime=RUNTIME,
        observed=(),
        notes=(
            f"{script.name} made the file (SHA-256 of it and its modules {digest[:12]}), "
            f"llama.cpp's own quantizer its types; the board's llama.cpp must know {architecture}",
            *notes,
        ),
    )


def emit_converted(
    lowered: Lowered,
    importance: Importance | None,
    recipe: Recipe,
    target: Target,
    file: Path,
    progress: Progress,
) -> Payload:
    """Write the file by way of a float file beside it, which is removed again.

    Args:
        lowered: Of `lower_converted`, with its checkpoint.
        importance: By the names that the script gives to tensors.
        recipe: With the script.
        target: Of the artifact.
        file: Where it goes.
        progress: Told of the quantizer's tensors; the script tells nothing.

    Raises:
        ExportFailed: Script, quantizer or disk; a tensor of another kind where that is an error.
    """
    assert recipe.converter is not None  # the exporter asks
    file_type = file_type_named(recipe.precision)
    means = importance_means(importance)
    _write(lowered.checkpoint, recipe.converter, file, file_type, means, progress)
    stored = read_stored_file(file, file_type)
    if recipe.is_strict:
        refuse_substitutions(stored.assignment, where=f"edgeship.toml: targets.{target.name}.gguf")
    forecast = stored.forecast(recipe.context or MOST_CONTEXT)
    return Payload(
        files={file.name: Role.MODEL},
        contract=lowered.contract,
        requires=Requirements(
            any_of=(
                RuntimeNeed(runtime=RUNTIME, min=target.formats[Format.GGUF].runtimes[0].version),
            ),
            memory_bytes=stored.weight_bytes if forecast is None else forecast.total,
        ),
        notes=(
            *substitution_notes(stored.assignment),
            *_importance_notes(file_type, means),
            _unknown_memory(stored)
            if forecast is None
            else f"{memory_note(forecast, target.memory_bytes)}, by the rules of Llama's layers",
        ),
        output_steps={},
    )


def _write(
    checkpoint: Path,
    script: Path,
    file: Path,
    file_type: FileType,
    importance: Mapping[str, Floats],
    progress: Progress,
) -> None:
    between = file.with_name(_FLOAT_NAME)
    try:
        convert(script, checkpoint, between, file_type)
        quantize_file(
            between,
            file,
            file_type,
            threads=os.cpu_count() or 1,
            importance=importance,
            progress=progress,
        )
    finally:
        between.unlink(missing_ok=True)


def _vocabulary_notes(vocabulary: Vocabulary, architecture: str, source: Source) -> tuple[str, ...]:
    """The proof's, or why there is none."""
    try:
        proof = prove_vocabulary(vocabulary, source.checkpoint, architecture, source.texts)
    except ConfigurationError as error:  # the directory's tokenizer is of a kind not known here
        why = "; ".join(problem.what for problem in error.problems)
        return (f"not proven that llama.cpp finds the tokenizer's tokens: {why}",)
    return proof_notes(proof)


def _importance_notes(file_type: FileType, importance: Mapping[str, Floats]) -> tuple[str, ...]:
    if importance or file_type.kind in _WITHOUT_SEARCH:
        return ()
    return ("quantized without an importance matrix",)


def _unknown_memory(stored: StoredFile) -> str:
    return (
        f"memory beside the weights is not forecast: {stored.architecture} does not say what "
        "attention its layers have"
    )
