"""Texts as samples: paragraphs of a .txt or lines of a .jsonl, through the model's tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgeship.calibration.samples import LoadedSample, Sample
from edgeship.contract import TensorSpec
from edgeship.errors import ConfigurationError, Problem
from edgeship.project import TextSection

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT_SUFFIXES: Final = frozenset({".txt", ".jsonl"})
TOKENIZER_NAME: Final = "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class TextSamples:
    """Texts in memory, tokenized one at a time: int64[1, length] for each input."""

    samples: Sequence[Sample]
    class_names: Sequence[str]
    texts: Sequence[str]
    specs: Sequence[TensorSpec]
    tokenizer: Tokenizer

    def load(self, index: int) -> LoadedSample:
        """See `SampleSet.load`."""
        encoding = self.tokenizer.encode(self.texts[index])
        tokens = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        inputs = {
            spec.name: np.array(tokens[spec.name], np.int64).reshape(spec.shape)
            for spec in self.specs
        }
        return LoadedSample(inputs=inputs, pixels=None)


def open_texts(path: Path, section: TextSection) -> TextSamples:
    """Open a .txt (one text a paragraph) or a .jsonl (objects with the input's name, or "text").

    Raises:
        ConfigurationError: The file or the tokenizer cannot be read, naming the line.
    """
    entries = _entries(path, section.name)
    samples = [
        Sample(
            name=f"{path.name}:{line}",
            digest=hashlib.sha256(text.encode()).hexdigest(),
            label=label,
        )
        for line, text, label in entries
    ]
    return TextSamples(
        samples=samples,
        class_names=(),
        texts=[text for _, text, _ in entries],
        specs=section.specs(),
        tokenizer=open_tokenizer(section),
    )


def read_texts(path: Path, name: str) -> tuple[str, ...]:
    """The texts of a .txt or .jsonl file, whose objects have a key `name`, or "text".

    Raises:
        ConfigurationError: The file cannot be read, naming the line.
    """
    return tuple(text for _, text, _ in _entries(path, name))


def _entries(path: Path, name: str) -> list[tuple[int, str, int | None]]:
    """Line, text and label of each."""
    return list(_paragraphs(path) if path.suffix == ".txt" else _lines(path, name))


def open_tokenizer(section: TextSection) -> Tokenizer:
    """The tokenizer, cutting and padding to the section's length.

    Raises:
        ConfigurationError: No tokenizer.json, a damaged one, or one without a padding token.
    """
    from tokenizers import Tokenizer

    file = section.tokenizer / TOKENIZER_NAME
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the vendor raises Exception itself
        problem = Problem(
            where=str(file),
            what="the tokenizer cannot be read",
            found=str(error)[:200],
            remedy="save it with tokenizer.save_pretrained(), which writes tokenizer.json",
        )
        raise ConfigurationError(problem) from error
    token = _setting(section.tokenizer, "pad_token")
    number = None if token is None else tokenizer.token_to_id(token)
    if token is None or number is None:
        problem = Problem(
            where=str(file),
            what="the tokenizer has no padding token",
            expected="pad_token in tokenizer_config.json",
            found=repr(token),
            remedy="set one: every sample is padded to the same length",
        )
        raise ConfigurationError(problem)
    tokenizer.enable_truncation(section.length)
    side = _setting(section.tokenizer, "padding_side") or "right"
    tokenizer.enable_padding(direction=side, length=section.length, pad_id=number, pad_token=token)
    return tokenizer


def _setting(directory: Path, key: str) -> str | None:
    """A text in the tokenizer's configuration; special tokens may be objects with a content."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            value = json.loads((directory / name).read_bytes()).get(key)
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            return value
    return None


def _paragraphs(path: Path) -> Iterator[tuple[int, str, int | None]]:
    """Line number and text of each run of lines that are not blank."""
    lines: list[str] = []
    start = 1
    for number, line in enumerate([*_read(path).splitlines(), ""], start=1):
        if line.strip():
            if not lines:
                start = number
            lines.append(line.strip())
        elif lines:
            yield start, " ".join(lines), None
            lines = []


def _lines(path: Path, name: str) -> Iterator[tuple[int, str, int | None]]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        text = value.get(name, value.get("text")) if isinstance(value, dict) else None
        label = value.get("label") if isinstance(value, dict) else None
        if not isinstance(text, str) or not _is_label(label):
            problem = Problem(
                where=f"{path}:{number}",
                what="the line is no sample",
                expected=f'{{"{name}": "...", "label": 0}}, the label being optional',
                found=line[:80],
                remedy="mend or remove the line",
            )
            raise ConfigurationError(problem)
        yield number, text, label


def _is_label(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem(
            where=str(path),
            what="the text is not UTF-8",
            found=f"byte {error.object[error.start]:#04x} at {error.start}",
            remedy="save it as UTF-8",
        )
        raise ConfigurationError(problem) from error
