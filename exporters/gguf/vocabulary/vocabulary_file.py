"""A GGUF file with a vocabulary and nothing else, which llama.cpp loads to tokenize."""

from __future__ import annotations

from pathlib import Path

from edgeship.exporters.gguf.blueprint import text
from edgeship.exporters.gguf.header import encode_header
from edgeship.exporters.gguf.layout import Layout
from edgeship.exporters.gguf.vocabulary.reader import Vocabulary


def write_vocabulary_file(vocabulary: Vocabulary, architecture: str, file: Path) -> None:
    """Write it.

    Args:
        vocabulary: What is written.
        architecture: `general.architecture`.
        file: Replaced if it is there.
    """
    metadata = (("general.architecture", text(architecture)), *vocabulary.metadata)
    file.write_bytes(encode_header(metadata, Layout(placements=(), data_bytes=0)))
