from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.exporters.gguf.vocabulary import Vocabulary, prove_vocabulary
from edgeship.exporters.gguf.vocabulary.hard_texts import HARD_TEXTS
from edgeship.exporters.gguf.vocabulary.vocabulary_file import write_vocabulary_file

SETTINGS: Final = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "add_eos_token": False,
    "legacy": False,
    "add_prefix_space": True,
    "chat_template": "{{ messages }}",
    "added_tokens_decoder": {
        "0": {"content": "<unk>", "special": True},
        "1": {"content": "<s>", "special": True},
        "2": {"content": "</s>", "special": True},
        "400": {"content": "<|tool|>", "special": False},
        "401": {"content": "two\u2581words", "special": False},
    },
}
CONFIG: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 405,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


OPTIONS: Final[dict[str, Any]] = {
    "vocab_size": 400,
    "model_type": "bpe",
    "byte_fallback": True,
    "character_coverage": 0.98,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "minloglevel": 2,
}


@pytest.fixture
def make_pieces(tmp_path: Path) -> Callable[..., Path]:
    """Directories with a SentencePiece model that was trained on the spot."""

    def make(settings: Mapping[str, object] = SETTINGS, **options: str | int | bool) -> Path:
        import sentencepiece

        directory = tmp_path / "pieces"
        directory.mkdir()
        texts = [text.replace("\n", " ") for text in HARD_TEXTS[:12] * 3]
        with (directory / "tokenizer.model").open("wb") as model:
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(texts), model_writer=model, **{**OPTIONS, **options}
            )
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
        (directory / "config.json").write_text(json.dumps(CONFIG))
        return directory

    return make


@pytest.fixture
def json_only(tmp_path: Path) -> Path:
    """The kind of tokenizer.json that transformers makes of a SentencePiece model."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<unk>", "<s>", "</s>"]
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=special + single, show_progress=False, limit_alphabet=150
    )
    tokenizer.train_from_iterator([*HARD_TEXTS] * 3, trainer)
    value = json.loads(tokenizer.to_str())
    value["pre_tokenizer"]["split"] = False
    value["added_tokens"] = value["added_tokens"][: len(special)]
    whole = Tokenizer.from_str(json.dumps(value))
    whole.add_tokens([AddedToken("<tool>", normalized=False)])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    whole.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    whole.save(str(tmp_path / "tokenizer.json"))
    settings = {**SETTINGS, "added_tokens_decoder": {}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {**CONFIG, "vocab_size": whole.get_vocab_size() + 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_rows_without_a_piece_are_padded_and_settings_add_tokens(
    make_pieces: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_pieces()
    vocabulary = read_for(directory)
    known = {key: value.value for key, value in vocabulary.metadata}
    types = known["tokenizer.ggml.token_type"]
    assert isinstance(types, tuple)
    assert vocabulary.tokens[400:] == ("<|tool|>", "two words", "[PAD402]", "[PAD403]", "[PAD404]")
    assert types[400:] == (3, 4, 5, 5, 5)
    assert types[:4] == (3, 3, 3, 6)
    assert prove_vocabulary(vocabulary, directory, "llama").texts == len(HARD_TEXTS)


def test_a_tokenizer_json_alone_gets_the_scores_of_its_merges(
    json_only: Path, read_for: Callable[..., Vocabulary]
) -> None:
    vocabulary = read_for(json_only)
    assert vocabulary.kind == "llama"
    assert vocabulary.tokens[-1] == f"[PAD{vocabulary.size - 1}]"
    proof = prove_vocabulary(vocabulary, json_only, "llama", ["a text of calibration data"])
    assert proof.texts == len(HARD_TEXTS)
    assert proof.notes[0].startswith(
        "llama.cpp puts a space before a text that begins with one: 1 "
    )


def test_pieces_without_bytes_are_refused_because_llama_cpp_would_end_the_process(
    make_pieces: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_pieces(byte_fallback=False, vocab_size=300)
    with pytest.raises(ExportFailed, match=r"no tokens for single bytes.*256 missing"):
        read_for(directory)


def test_a_unigram_model_is_refused_by_the_proof(
    make_pieces: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_pieces(model_type="unigram", hard_vocab_limit=False)
    with pytest.raises(ExportFailed, match="other tokens than the tokenizer does"):
        prove_vocabulary(read_for(directory), directory, "llama")


def test_a_damaged_model_is_named(
    make_pieces: Callable[..., Path], read_for: Callable[..., Vocabulary]
) -> None:
    directory = make_pieces()
    file = directory / "tokenizer.model"
    file.write_bytes(file.read_bytes()[:500] + b"\xff" * 64)
    with pytest.raises(ConfigurationError, match="SentencePiece model cannot be read"):
        read_for(directory)


@pytest.mark.slow
def test_the_converter_of_llama_cpp_writes_the_same(
    make_pieces: Callable[..., Path],
    read_for: Callable[..., Vocabulary],
    convert: Callable[..., Path],
    tokenizer_entries: Callable[[Path], object],
) -> None:
    directory = make_pieces()
    (directory / "added_tokens.json").write_text(json.dumps({"<plain>": 403, "<beyond>": 4000}))
    own = directory / "own.gguf"
    write_vocabulary_file(read_for(directory), "llama", own)
    assert tokenizer_entries(own) == tokenizer_entries(convert(directory))
