"""A SentencePiece tokenizer that keeps texts as they are, as Llama's does."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Final

VOCABULARY: Final = 320
TEXT: Final = (
    "the quick brown fox jumps over the lazy dog while seven wizards mix a potion of old toad\n"
    "every board has a memory and a clock and a story that nobody told the compiler about\n"
    "numbers are measured on quiet afternoons when the machine has nothing better to do\n"
)


def write_tokenizer(directory: Path) -> Path:
    (directory / "tokenizer.model").write_bytes(_trained())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@cache
def _trained() -> bytes:
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()
