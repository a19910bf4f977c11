"""Vocabularies of GGUF files: read from a Hugging Face directory, proven against llama.cpp."""

from __future__ import annotations

from edgeship.exporters.gguf.vocabulary.proof import Proof, prove_vocabulary
from edgeship.exporters.gguf.vocabulary.reader import Vocabulary, read_vocabulary

__all__ = ["Proof", "Vocabulary", "prove_vocabulary", "read_vocabulary"]
