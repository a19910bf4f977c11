"""Converter: llama.cpp's own script, for checkpoints that this package does not read.

The way round: a process, a float file on the disk and a second pass over it, where the way of this
package is one pass. The script reads the checkpoint as it sees fit; some of its models run Python
code that lies in the checkpoint's directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.digests import file_sha256, json_sha256
from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.blueprint import MetadataValue, Scalar, ValueType
from edgeship.exporters.gguf.file_types import FileType
from edgeship.exporters.gguf.vocabulary import Vocabulary
from edgeship.exporters.gguf.vocabulary.tokens import MODEL, PRE, TOKENS
from edgeship.exporters.gguf.vocabulary.vendors import vendor
from edgeship.quantities import text_from_bytes
from edgeship.source.element import ElementType
from edgeship.source.stored_checkpoint import open_checkpoint

if TYPE_CHECKING:
    from edgeship.source.tensor_source import TensorEntry

ARCHITECTURE: Final = "general.architecture"
_MODULES: Final = ("conversion", "gguf-py/gguf")
"""What llama.cpp ships beside the script, and the script imports."""
_VOCABULARY_NAME: Final = "vocabulary.gguf"
_LAST_LINES: Final = 4
_SHOWN: Final = 600
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def converter_files(script: Path) -> tuple[Path, ...]:
    """The script and the modules beside it that it imports, in a fixed order."""
    modules = (file for name in _MODULES for file in (script.parent / name).rglob("*.py"))
    return (script, *sorted(modules))


def converter_sha256(script: Path) -> str:
    """Identity of the script with its modules."""
    names = [
        [file.relative_to(script.parent).as_posix(), file_sha256(file)]
        for file in converter_files(script)
    ]
    return json_sha256(names)


def converted_vocabulary(script: Path, checkpoint: Path, scratch: Path) -> tuple[str, Vocabulary]:
    """The architecture and the vocabulary that the script would write.

    Args:
        script: `convert_hf_to_gguf.py`.
        checkpoint: Directory of the Hugging Face model.
        scratch: Directory for a file that is removed again.

    Raises:
        ExportFailed: The script does not know the model, or failed otherwise.
        RequirementMissing: gguf is not installed.
    """
    gguf = vendor("gguf")
    file = scratch / _VOCABULARY_NAME
    try:
        _run(script, checkpoint, file, "--vocab-only")
        fields: dict[str, Any] = gguf.GGUFReader(file).fields
        return str(fields[ARCHITECTURE].contents()), _vocabulary(fields)
    finally:
        file.unlink(missing_ok=True)


def convert(script: Path, checkpoint: Path, destination: Path, file_type: FileType) -> None:
    """Write the checkpoint as a float file that holds every weight exactly.

    bfloat16 where every tensor of the checkpoint is; else float32.

    Args:
        script: `convert_hf_to_gguf.py`.
        checkpoint: Directory of the Hugging Face model.
        destination: Of the file.
        file_type: What becomes of it on the same disk, which must have room for both.

    Raises:
        ConfigurationError: The checkpoint is damaged.
        ExportFailed: The disk is too small, or the script failed.
    """
    with open_checkpoint(checkpoint) as opened:
        entries = tuple(opened.source.entries.values())
    outtype = _exact_type(entries)
    _require_space(entries, outtype, file_type, destination)
    _run(script, checkpoint, destination, "--outtype", outtype)


def _exact_type(entries: Iterable[TensorEntry]) -> str:
    return "bf16" if all(entry.element is ElementType.BF16 for entry in entries) else "f32"


def _require_space(
    entries: Iterable[TensorEntry], outtype: str, file_type: FileType, destination: Path
) -> None:
    """Room for the float file and what is made of it; mixtures are some percent larger."""
    weights = sum(entry.elements for entry in entries)
    float_bytes = weights * (2 if outtype == "bf16" else 4)
    needed = float_bytes + round(weights * file_type.kind.bits_per_weight / 8)
    free = shutil.disk_usage(destination.parent).free
    if free < needed:
        problem = Problem(
            where=str(destination.parent),
            what="the disk is too small for the converter's float file and the one made of it",
            expected=f"{text_from_bytes(needed)} free",
            found=text_from_bytes(free),
            remedy="make room, or put the project on another disk",
        )
        raise ExportFailed(problem)


def _run(script: Path, checkpoint: Path, destination: Path, *options: str) -> None:
    """Run the script with this Python; it may fetch nothing from Hugging Face's hub."""
    paths = (str(script), str(checkpoint))
    command = [sys.executable, *paths, *options, "--outfile", str(destination)]
    environment = {**os.environ, **_OFFLINE}
    environment.pop("PYTHONSAFEPATH", None)  # the script imports what lies beside it
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
            check=False,
        )
        said.seek(0)
        lines = said.read().decode(errors="replace").split("\n")
    if done.returncode == 0 and destination.is_file():
        return
    last = " | ".join([line.strip() for line in lines if line.strip()][-_LAST_LINES:])
    problem = Problem(
        where=str(script),
        what=f"the converter failed on {checkpoint.name} with status {done.returncode}"
        if done.returncode
        else f"the converter wrote nothing of {checkpoint.name}",
        found=last[-_SHOWN:] or "it said nothing",
        remedy="take the script of a llama.cpp that knows the architecture, and install what it "
        "imports",
    )
    raise ExportFailed(problem)


def _vocabulary(fields: dict[str, Any]) -> Vocabulary:
    """The `tokenizer.` keys of a file."""
    metadata = tuple(
        (name, _value(field)) for name, field in fields.items() if name.startswith("tokenizer.")
    )
    known = dict(metadata)
    listed = known[TOKENS].value if TOKENS in known else ()
    assert isinstance(listed, tuple)  # an array
    tokens = tuple(_text(token) for token in listed)
    kind, pretokenizer = (_text(known[key].value) if key in known else "" for key in (MODEL, PRE))
    return Vocabulary(
        metadata=metadata,
        size=len(tokens),
        kind=kind,
        pretokenizer=pretokenizer,
        tokens=tokens,
    )


def _value(field: Any) -> MetadataValue:  # noqa: ANN401 - a vendor's field
    """A field as it is, texts as bytes: those of tokens need not be UTF-8."""
    types = [ValueType(int(number)) for number in field.types]
    parts = [field.parts[index] for index in field.data]
    is_text = types[-1] is ValueType.STRING
    values: list[Scalar] = [part.tobytes() if is_text else part.tolist()[0] for part in parts]
    if types[0] is ValueType.ARRAY:
        return MetadataValue(type=types[0], value=tuple(values), item=types[-1])
    return MetadataValue(type=types[0], value=values[-1])


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
