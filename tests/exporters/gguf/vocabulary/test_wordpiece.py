from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer

from edgeship.errors import ConfigurationError
from edgeship.exporters.gguf.vocabulary import read_vocabulary

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "c"]


def save(directory: Path, *, names_special: bool) -> None:
    tokens = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordPiece(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    if names_special:
        tokenizer.add_special_tokens(WORDS[:5])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text(json.dumps({"vocab_size": len(WORDS)}))
    if names_special:
        named = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP")}
        (directory / "tokenizer_config.json").write_text(json.dumps(named))


def test_special_tokens_that_nothing_names_are_refused_where_llama_cpp_would_end_the_process(
    tmp_path: Path,
) -> None:
    save(tmp_path, names_special=False)
    with pytest.raises(ConfigurationError, match="names no unknown token") as caught:
        read_vocabulary(tmp_path, "bert", len(WORDS))
    assert "tokenizer_config.json" in str(caught.value)


def test_special_tokens_that_are_named_are_read(tmp_path: Path) -> None:
    save(tmp_path, names_special=True)
    metadata = dict(read_vocabulary(tmp_path, "bert", len(WORDS)).metadata)
    assert metadata["tokenizer.ggml.unknown_token_id"].value == 1
