from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.exporters.gguf.blueprint import ValueType, array, text
from edgeship.exporters.gguf.vocabulary import Vocabulary, prove_vocabulary
from edgeship.exporters.gguf.vocabulary.patterns import LLAMA3, QWEN2


def with_value(vocabulary: Vocabulary, key: str, value: str) -> Vocabulary:
    changed = dict(vocabulary.metadata) | {key: text(value)}
    return replace(vocabulary, metadata=tuple(changed.items()))


def test_the_wrong_pattern_is_refused_with_text_place_and_both_tokens(
    make_bpe: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_bpe([LLAMA3])
    wrong = with_value(read_for(directory), "tokenizer.ggml.pre", "qwen2")
    with pytest.raises(
        ExportFailed, match=r"at token \d+ of '3 33 333.*expected '33' .*found '3' "
    ):
        prove_vocabulary(wrong, directory, "llama")


def test_a_text_of_the_data_is_compared_too(
    make_bpe: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_bpe([QWEN2])
    vocabulary = read_for(directory)
    known = dict(vocabulary.metadata)
    first, second = (vocabulary.tokens.index(byte) for byte in "\u0101\u0102")  # of "\1", "\2"
    swapped = list(vocabulary.tokens)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    known["tokenizer.ggml.tokens"] = array(ValueType.STRING, swapped)
    wrong = replace(vocabulary, metadata=tuple(known.items()))
    built_in = prove_vocabulary(wrong, directory, "qwen2").texts
    assert prove_vocabulary(wrong, directory, "qwen2", ["one", "two"]).texts == built_in + 2
    with pytest.raises(ExportFailed, match=r"at token 1 of 'a\\x01b'"):
        prove_vocabulary(wrong, directory, "qwen2", ["one", "a\1b"])


def test_a_text_that_both_compose_is_equal_and_noted(
    make_bpe: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_bpe([QWEN2], changes={"normalizer": {"type": "NFC"}})
    proof = prove_vocabulary(read_for(directory), directory, "qwen2", ["cafe\u0301"])
    assert ["NFC" in note for note in proof.notes[:1]] == [True]


def test_what_llama_cpp_cannot_load_is_refused_with_its_reason(
    make_bpe: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_bpe([QWEN2])
    unknown = with_value(read_for(directory), "tokenizer.ggml.pre", "no such type")
    with pytest.raises(ExportFailed, match="unknown pre-tokenizer type: 'no such type'"):
        prove_vocabulary(unknown, directory, "qwen2")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "tokenizer.json: the file cannot be read"),
        ("tokenizer.json", "[]", "expected a JSON object, found list"),
        ("tokenizer.json", "{}", "tokenizer.json: the tokenizer cannot be read"),
        ("tokenizer_config.json", "null", "tokenizer_config.json: the file cannot be read"),
        ("chat_template.jinja", b"\xff", "the chat template cannot be read"),
    ],
)
def test_a_broken_file_is_one_clear_problem(
    name: str,
    content: str | bytes,
    message: str,
    make_bpe: Callable[..., Path],
    read_for: Callable[..., Vocabulary],
) -> None:
    directory = make_bpe([QWEN2], settings={"eos_token": "a"})
    raw = content if isinstance(content, bytes) else content.encode()
    (directory / name).write_bytes(raw)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_for(directory, "qwen2")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "bert", "deci"])
def test_a_missing_tokenizer_is_one_clear_problem(
    architecture: str, tmp_path: Path, read_for: Callable[..., Vocabulary]
) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 10}')
    with pytest.raises(ConfigurationError, match="there is no tokenizer that can be read"):
        read_for(tmp_path, architecture)


def test_mistrals_own_form_is_named(tmp_path: Path, read_for: Callable[..., Vocabulary]) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 10}')
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"tekken.json: .*Mistral's own form"):
        read_for(tmp_path)


def test_more_tokens_than_rows_are_refused(
    make_bpe: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_bpe([QWEN2], rows=300)
    with pytest.raises(ConfigurationError, match="numbers below vocab_size = 300"):
        read_for(directory, "qwen2")


def test_tokens_of_equal_text_are_refused_because_llama_cpp_would_end_the_process(
    make_bpe: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    settings = {"added_tokens_decoder": {"701": {"content": "[PAD705]", "special": False}}}
    directory = make_bpe([QWEN2], settings=settings, rows=710)
    with pytest.raises(ConfigurationError, match=r"'\[PAD705\]', 2 times"):
        read_for(directory, "qwen2")
