from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from edgeship.exporters.gguf.vocabulary.files import TokenizerFiles
from edgeship.exporters.gguf.vocabulary.special import special_metadata, with_family_rules

LLAMA_CPP: Final = """\
import json, logging, sys
tree, limit, *directories = sys.argv[1:]
sys.path.insert(0, tree + "/gguf-py")
import gguf
logging.disable()
for directory in directories:
    vocabulary = gguf.SpecialVocab(directory, n_vocab=int(limit))
    writer = gguf.GGUFWriter(None, "llama")
    writer.kv_data[0].clear()
    vocabulary.add_to_gguf(writer, quiet=True)
    found = [(key, entry.value, entry.type.name) for key, entry in writer.kv_data[0].items()]
    print(json.dumps(found))
"""
NAMES: Final = ("<s>", "</s>", "[CLS]", "[SEP]", "<pad>", "<eot>")
ADDED: Final = [{"id": number, "content": name} for number, name in enumerate(NAMES)]


def entry(name: str) -> dict[str, object]:
    return {"Sequence" if name in "AB" else "SpecialToken": {"id": name, "type_id": 0}}


def template(single: str, pair: str = "") -> dict[str, object]:
    sides = {"single": single.split(), "pair": pair.split()}
    return {
        "type": "TemplateProcessing",
        **{side: [entry(name) for name in names] for side, names in sides.items()},
    }


BYTES: Final[dict[str, object]] = {"type": "ByteLevel"}
POST_PROCESSORS: Final[tuple[dict[str, object] | None, ...]] = (
    None,
    BYTES,
    template("A", "A B"),
    template("<s> A", "<s> A <s> B"),
    template("<s> A </s>", "<s> A </s> </s> B </s>"),
    template("[CLS] A [SEP]", "[CLS] A [SEP] B [SEP]"),
    template("A </s>", "A </s> B </s>"),
    template("A <eot>", "A B <eot>"),
    template("<pad> A", "<pad> A [SEP] B"),
    template("A", "A </s> B"),
    {"type": "RobertaProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]},
    {"type": "Sequence", "processors": [BYTES, template("<s> A", "<s> A <s> B")]},
)
SETTINGS: Final[tuple[dict[str, object] | None, ...]] = (
    None,
    {},
    {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    {"bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}, "add_bos_token": True},
    {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "unknown"},
    {"bos_token": None, "eos_token": "</s>", "add_bos_token": False, "add_eos_token": True},
    {"unk_token": "</s>", "chat_template": "{{ x }}", "add_sep_token": False},
    {"eos_token": "<eot>", "chat_template": [{"name": "default", "template": "{{ y }}"}]},
)
NORMALIZERS: Final[tuple[dict[str, object] | None, ...]] = (
    None,
    {"type": "BertNormalizer", "lowercase": False, "strip_accents": None},
    {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
    {"type": "StripAccents"},
)
CONFIGS: Final[tuple[dict[str, object], ...]] = (
    {},
    {"bos_token_id": 1, "eos_token_id": [1, 2], "pad_token_id": 0, "unk_token_id": 99},
    {"text_config": {"eos_token_id": 3}, "sep_token_id": 2},
)


def directories(root: Path) -> Iterator[Path]:
    """One directory for each post-processor and settings, with the others in turn."""
    for number, (post, settings) in enumerate(product(POST_PROCESSORS, SETTINGS)):
        directory = root / str(number)
        directory.mkdir()
        normalizer = NORMALIZERS[number % len(NORMALIZERS)]
        tokenizer = {"added_tokens": ADDED, "normalizer": normalizer, "post_processor": post}
        files: dict[str, Any] = {
            "tokenizer.json": tokenizer if number % 7 else None,
            "tokenizer_config.json": settings,
            "config.json": CONFIGS[number % len(CONFIGS)],
        }
        for name, value in files.items():
            if value is not None:
                (directory / name).write_text(json.dumps(value))
        if number % 5 == 0:
            (directory / "chat_template.jinja").write_text("{{ from_a_file }}")
        yield directory


@pytest.mark.slow
def test_special_tokens_are_those_that_llama_cpp_reads(
    tmp_path: Path, llama_cpp_tree: Path
) -> None:
    made = list(directories(tmp_path))
    command = [sys.executable, "-c", LLAMA_CPP, str(llama_cpp_tree), "90", *map(str, made)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for directory, line in zip(made, done.stdout.splitlines(), strict=True):
        expected = [tuple(item) for item in json.loads(line)]
        found = [
            (key, value.value, value.type.name)
            for key, value in special_metadata(TokenizerFiles(directory=directory), 90)
        ]
        assert found == expected, directory


def test_several_templates_are_named_and_sorted(tmp_path: Path) -> None:
    templates = [
        {"name": "tool use", "template": "{{ t }}"},
        {"name": "rag", "template": "{{ r }}"},
        {"name": "default", "template": "{{ d }}"},
    ]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    found = special_metadata(TokenizerFiles(directory=tmp_path), None)
    assert [(key, value.value) for key, value in found] == [
        ("tokenizer.chat_template.tool_use", "{{ t }}"),
        ("tokenizer.chat_template.rag", "{{ r }}"),
        ("tokenizer.chat_templates", ("rag", "tool_use")),
        ("tokenizer.chat_template", "{{ d }}"),
    ]


def test_families_of_llama_are_known_by_their_size() -> None:
    assert [key for key, _ in with_family_rules((), 32016)] == ["tokenizer.ggml.eot_token_id"]
    assert [key for key, _ in with_family_rules((), 49152)] == ["tokenizer.ggml.add_bos_token"]
    assert with_family_rules((), 32000) == ()
