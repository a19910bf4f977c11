from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from edgeship.exporters.gguf.vocabulary import Vocabulary, read_vocabulary
from edgeship.exporters.gguf.vocabulary.hard_texts import HARD_TEXTS

ROOT: Final = Path(__file__).parents[4]
CONVERTER: Final = """\
import runpy, sys
tree, pre, *arguments = sys.argv[1:]
sys.path[:0] = [tree, tree + "/gguf-py"]
from conversion.base import TextModel
if pre:
    TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
sys.argv = ["convert_hf_to_gguf.py", "--vocab-only", *arguments]
runpy.run_path(tree + "/convert_hf_to_gguf.py", run_name="__main__")
"""
CORPUS: Final = (
    *HARD_TEXTS,
    "the cat and the dog went there and then they came here, in 1234 or in 5678",
    "def train(self, data): return [self.step(item) for item in data if item is not None]",
    "what is not there cannot be here; where it is, that it was, and who it will be",
) * 3


@pytest.fixture
def make_bpe(tmp_path: Path) -> Callable[..., Path]:
    """Directories of byte-level tokenizers that were trained on the spot.

    `steps` are regular expressions; None is GPT-2's own. `changes` are those of tokenizer.json,
    a value being merged into an object of that name.
    """

    def make(
        steps: Sequence[str] | None,
        *,
        specials: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        changes: Mapping[str, Any] | None = None,
        rows: int | None = None,
    ) -> Path:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=steps is None)
        cuts = [pre_tokenizers.Split(Regex(step), "isolated") for step in steps or ()]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, alphabet]) if cuts else alphabet
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=list(specials),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(CORPUS, trainer)
        directory = tmp_path / f"bpe{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        value = json.loads(tokenizer.to_str())
        for key, change in (changes or {}).items():
            value[key] = {**value[key], **change} if isinstance(value.get(key), dict) else change
        (directory / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
        if settings is not None:
            (directory / "tokenizer_config.json").write_text(json.dumps(settings))
        described = {"vocab_size": rows or tokenizer.get_vocab_size(), **(config or {})}
        (directory / "config.json").write_text(json.dumps(described))
        return directory

    return make


@pytest.fixture
def read_for() -> Callable[[Path, str], Vocabulary]:
    """Reads the vocabulary of a directory for its `vocab_size`."""

    def read(directory: Path, architecture: str = "llama") -> Vocabulary:
        config = json.loads((directory / "config.json").read_text())
        return read_vocabulary(directory, architecture, config["vocab_size"])

    return read


@pytest.fixture
def tokenizer_entries() -> Callable[[Path], list[tuple[str, list[str], Any]]]:
    """Key, types and value of what a file says of its tokens, in its order."""

    def read(file: Path) -> list[tuple[str, list[str], Any]]:
        import gguf

        fields = gguf.GGUFReader(file).fields
        return [
            (name, [kind.name for kind in field.types], field.contents())
            for name, field in fields.items()
            if name.startswith("tokenizer.")
        ]

    return read


@pytest.fixture
def llama_cpp_tree() -> Path:
    """Sources of the llama.cpp that llama-cpp-python holds."""
    named = os.environ.get("EDGESHIP_LLAMA_CPP")
    tree = Path(named) if named else ROOT / ".cache/llama.cpp"
    if not (tree / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp: make fixtures")
    return tree


@pytest.fixture
def convert(tmp_path: Path, llama_cpp_tree: Path) -> Callable[..., Path]:
    """Runs llama.cpp's own converter; `pre` is what it shall take the pre-tokenizer to be."""

    def run(directory: Path, pre: str = "") -> Path:
        file = tmp_path / "converted.gguf"
        command = [sys.executable, "-c", CONVERTER, str(llama_cpp_tree), pre, str(directory)]
        done = subprocess.run(
            [*command, "--outfile", str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return file

    return run
