"""Engine: token numbers by llama.cpp itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.vocabulary.vendors import vendor


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A vocabulary that llama.cpp has loaded."""

    package: Any  # llama_cpp, whose functions are made by ctypes
    pointer: Any

    def encode(self, text: str) -> list[int]:
        """Numbers of a text's tokens, with those that begin and end every text."""
        raw = text.encode()
        room = len(raw) + 8  # a token holds at least a byte, but for those around the text
        tokens = (self.package.llama_token * room)()
        count = self.package.llama_tokenize(self.pointer, raw, len(raw), tokens, room, True, True)
        if count < 0:
            tokens = (self.package.llama_token * -count)()
            count = self.package.llama_tokenize(
                self.pointer, raw, len(raw), tokens, -count, True, True
            )
        return list(tokens[:count])


@contextmanager
def open_engine(file: Path) -> Iterator[Engine]:
    """Load the vocabulary of a GGUF file, and nothing else of it.

    Raises:
        ExportFailed: llama.cpp refuses it.
        RequirementMissing: llama-cpp-python is not installed.
    """
    package = vendor("llama_cpp")
    log: list[str] = []

    def keep(_level: int, line: bytes, _user_data: object) -> None:
        log.append(line.decode(errors="replace"))

    callback = package.llama_log_callback(keep)  # ctypes calls it until it is replaced
    previous = vendor("llama_cpp._logger").llama_log_callback
    package.llama_log_set(callback, None)
    try:
        parameters = package.llama_model_default_params()
        parameters.vocab_only = True
        parameters.n_gpu_layers = 0
        model = package.llama_model_load_from_file(str(file).encode(), parameters)
        if not model:
            raise _refused(log)
        try:
            yield Engine(package=package, pointer=package.llama_model_get_vocab(model))
        finally:
            package.llama_model_free(model)
    finally:
        package.llama_log_set(previous, None)


def _refused(log: list[str]) -> ExportFailed:
    said = [line.strip() for line in log if "error" in line.lower()]
    problem = Problem(
        where="vocabulary",
        what="llama.cpp cannot load it",
        found=(said or ["no reason given"])[0][:200],
        remedy="compare the tokenizer's files with those of the original model",
    )
    return ExportFailed(problem)
