from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeship.errors import ExportFailed
from edgeship.exporters.gguf.vocabulary import Vocabulary, prove_vocabulary
from edgeship.exporters.gguf.vocabulary.patterns import LLAMA3, PATTERNS, Pattern, plain_form


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_llama_cpp_cuts_as_every_pattern_of_the_table_says(
    pattern: Pattern, make_bpe: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_bpe(
        pattern.steps, changes={"model": {"ignore_merges": pattern.takes_whole_words}}
    )
    vocabulary = read_for(directory)
    assert vocabulary.pretokenizer == pattern.name
    proof = prove_vocabulary(vocabulary, directory, "llama")
    assert bool(proof.notes) == pattern.cuts_marks_off


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": r"[a-z]+|\d"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            },
            r"pre_tokenizer: .*llama-bpe.*qwen2.*found \[a-z\]\+\|\\d; set converter",
        ),
        ({"pre_tokenizer": {"add_prefix_space": True}}, "ByteLevel without add_prefix_space"),
        (
            {"normalizer": {"type": "Lowercase"}},
            "normalizer: .*expected none, or NFC, found Lowercase",
        ),
        ({"model": {"byte_fallback": True}}, "model: .*found BPE with byte_fallback"),
    ],
    ids=["pattern", "prefix", "normalizer", "fallback"],
)
def test_what_llama_cpp_cannot_do_is_refused_by_name(
    changes: dict[str, object],
    message: str,
    make_bpe: Callable[..., Path],
    read_for: Callable[..., Vocabulary],
) -> None:
    directory = make_bpe(None, changes=changes)
    with pytest.raises(ExportFailed, match=message):
        read_for(directory, "qwen2")


def test_a_pattern_may_be_spelled_otherwise() -> None:
    assert plain_form(r"[^\r\n]?+\p{L}+| ?[^\s]++[\r\n]*") == r"[^\r\n]?\p{L}+| ?[^\s]+[\r\n]*"
    assert plain_form("\\p{N}{1}|[\r\n]") == r"\p{N}|[\r\n]"


def test_a_new_vocabulary_that_never_begins_texts_says_so(
    make_bpe: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_bpe([LLAMA3], changes={"model": {"ignore_merges": True}})
    assert dict(read_for(directory).metadata)["tokenizer.ggml.add_bos_token"].value is False
