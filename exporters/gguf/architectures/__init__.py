"""Architectures: how a Hugging Face checkpoint of each becomes tensors and keys of llama.cpp."""

from edgeship.exporters.gguf.architectures.reading import ARCHITECTURES, read_blueprint

__all__ = ["ARCHITECTURES", "read_blueprint"]
