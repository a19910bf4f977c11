"""Proof: llama.cpp finds the tokens that the Hugging Face tokenizer finds."""

from __future__ import annotations

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.vocabulary.comparison import HuggingFace, open_hugging_face
from edgeship.exporters.gguf.vocabulary.engine import Engine, open_engine
from edgeship.exporters.gguf.vocabulary.files import TokenizerFiles
from edgeship.exporters.gguf.vocabulary.hard_texts import HARD_TEXTS, RARE_TEXTS
from edgeship.exporters.gguf.vocabulary.limits import known_limit
from edgeship.exporters.gguf.vocabulary.reader import Vocabulary
from edgeship.exporters.gguf.vocabulary.vocabulary_file import write_vocabulary_file

_AROUND: Final = 2
_SHOWN: Final = 60


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was compared.

    Attributes:
        texts: Number of texts whose tokens are the same.
        tokens: Number of tokens in them.
        notes: Lines for people: what llama.cpp does otherwise.
    """

    texts: int
    tokens: int
    notes: tuple[str, ...]


def prove_vocabulary(
    vocabulary: Vocabulary, directory: Path, architecture: str, texts: Iterable[str] = ()
) -> Proof:
    """Compare the tokens of the built-in hard texts and of others.

    Args:
        vocabulary: As it was read from the directory.
        directory: With the tokenizer's Hugging Face files.
        architecture: `general.architecture` of the file.
        texts: Of the calibration data, say.

    Raises:
        ExportFailed: They differ, showing the first text and place and both tokens; or llama.cpp
            cannot load the vocabulary.
        RequirementMissing: A package that it needs is not installed.
    """
    files = TokenizerFiles(directory=directory)
    reference = open_hugging_face(files)
    with tempfile.TemporaryDirectory(prefix="edgeship-vocabulary-") as scratch:
        file = Path(scratch) / "vocabulary.gguf"
        write_vocabulary_file(vocabulary, architecture, file)
        with open_engine(file) as engine:
            sides = _Sides(vocabulary=vocabulary, reference=reference, engine=engine)
            tally = _compare_all(sides, (*HARD_TEXTS, *texts), directory)
            notes = (*_limit_notes(tally), *_notes(sides))
    return Proof(texts=tally.texts, tokens=tally.tokens, notes=notes)


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """The two that are compared."""

    vocabulary: Vocabulary
    reference: HuggingFace
    engine: Engine

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens by the tokenizer and by llama.cpp, of a text that is composed for both."""
        if self.reference.composes_accents:
            text = unicodedata.normalize("NFC", text)
        return self.reference.encode(text), self.engine.encode(text)


@dataclass(kw_only=True)
class _Tally:
    texts: int = 0
    tokens: int = 0
    limited: Counter[str] = field(default_factory=Counter)


def _compare_all(sides: _Sides, texts: Iterable[str], directory: Path) -> _Tally:
    """Count the texts that become the same tokens, and those of which that is known not to be."""
    tally = _Tally()
    for text in texts:
        expected, found = sides.encode(text)
        if expected == found:
            tally.texts += 1
            tally.tokens += len(expected)
            continue
        limit = known_limit(sides.vocabulary, text)
        if limit is None:
            raise _mismatch(sides.vocabulary, text, expected, found, directory)
        tally.limited[limit] += 1
    return tally


def _mismatch(
    vocabulary: Vocabulary, text: str, expected: list[int], found: list[int], directory: Path
) -> ExportFailed:
    place = _first_difference(expected, found)
    problem = Problem(
        where=str(directory),
        what=f"llama.cpp cuts a text into other tokens than the tokenizer does, with the "
        f"pre-tokenizer {vocabulary.pretokenizer!r}, at token {place} of {_shown(text)}",
        expected=_pieces(vocabulary, expected, place),
        found=_pieces(vocabulary, found, place),
        remedy="look at the tokenizer's normalizer (llama.cpp keeps runs of spaces), or set "
        'converter = "PATH/convert_hf_to_gguf.py" of a llama.cpp that knows the model',
    )
    return ExportFailed(problem)


def _limit_notes(tally: _Tally) -> Iterator[str]:
    for limit, count in tally.limited.items():
        total = tally.texts + sum(tally.limited.values())
        yield f"{limit}: {count} of {total} texts become other tokens than the tokenizer finds"


def _notes(sides: _Sides) -> Iterator[str]:
    """What differs where no model is refused for it: rare texts, control tokens inside of one."""
    vocabulary = sides.vocabulary
    if sides.reference.composes_accents:
        yield (
            "llama.cpp does not bring texts into the form NFC, as the tokenizer does: a letter "
            "with a combining accent becomes other tokens unless the application composes it"
        )
    inside = (f"one {vocabulary.tokens[number]} two" for number in sides.reference.special_numbers)
    for kind, texts in (("rare", RARE_TEXTS), ("special", inside)):
        for text in texts:
            expected, found = sides.encode(text)
            if found != expected:
                place = _first_difference(expected, found)
                yield (
                    f"llama.cpp finds {_pieces(vocabulary, found, place)} in {_shown(text)}, the "
                    f"tokenizer {_pieces(vocabulary, expected, place)} ({kind} text, not refused)"
                )
                break


def _first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """The first place where two sequences differ, or the shorter one's end."""
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _pieces(vocabulary: Vocabulary, numbers: Sequence[int], place: int) -> str:
    """The token at a place and a few more, by text and number."""
    shown = [
        f"{vocabulary.tokens[number]!r} ({number})" if number < vocabulary.size else str(number)
        for number in numbers[place : place + _AROUND]
    ]
    return " ".join(shown) or "the end"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\u2026")
