"""Importance child: what `importance_process` starts; a request on stdin, JSON lines on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from edgeship.calibration.importance import observe_importance
from edgeship.calibration.importance_file import write_importance
from edgeship.calibration.importance_process import ImportanceRequest
from edgeship.errors import ConfigurationError, EdgeshipError, Problem
from edgeship.memory import own_peak_bytes
from edgeship.source.causal import load_causal
from edgeship.source.encoder import is_causal, load_encoder, quiet_transformers
from edgeship.source.hf_config import CONFIG, read_json_object
from edgeship.vocabulary import Output

if TYPE_CHECKING:
    from torch import nn

_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json")


def main() -> int:
    """Make the file, and say what was done, or what is wrong."""
    request = ImportanceRequest(**json.load(sys.stdin))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what a library prints is no answer
        try:
            _say(answers, _make(request, answers))
        except EdgeshipError as error:
            problems = [problem.to_json() for problem in error.problems]
            _say(answers, {"kind": type(error).__name__, "problems": problems})
            return int(error.exit_code)
    return 0


def _make(request: ImportanceRequest, answers: TextIO) -> dict[str, object]:
    import torch

    torch.set_num_threads(request.threads)
    directory = Path(request.directory)
    chunks = text_chunks(directory, request)
    importance = observe_importance(
        _load(directory),
        chunks,
        dataset=request.dataset,
        on_progress=lambda done, count: _say(answers, {"progress": [done, count]}),
    )
    write_importance(importance, Path(request.destination))
    return {
        "tokens": sum(len(chunk) for chunk in chunks),
        "peak_bytes": own_peak_bytes(),
        "notes": importance.notes(),
    }


def _load(directory: Path) -> nn.Module:
    if is_causal(directory):
        wrapper: Any = load_causal(directory)
    else:
        wrapper = load_encoder(directory, Output.LAST_HIDDEN_STATE, ("input_ids",)).eval()
    model: nn.Module = wrapper.model
    return model


def text_chunks(directory: Path, request: ImportanceRequest) -> list[list[int]]:
    """Sequences of token ids, at most `tokens` of them all.

    For a causal model the texts are strung together, and each sequence begins with BOS where the
    tokenizer begins a text so; for an encoder each text is one sequence, cut off where it is too
    long.

    Raises:
        ConfigurationError: No tokenizer, or less than one sequence of two tokens.
    """
    tokenizer = _tokenizer(directory)
    if is_causal(directory):
        found = _strung(tokenizer, request)
    else:
        limit = read_json_object(directory / CONFIG).get("max_position_embeddings")
        longest = (
            min(request.chunk_tokens, limit) if isinstance(limit, int) else request.chunk_tokens
        )
        found = (
            tokenizer(text, truncation=True, max_length=longest)["input_ids"]
            for text in request.texts
        )
    chunks, tokens = [], 0
    for chunk in found:
        if tokens >= request.tokens:
            break
        chunks.append(chunk)
        tokens += len(chunk)
    if not chunks:
        problem = Problem(
            where=request.dataset,
            what="there is too little text for an importance matrix",
            expected="at least one sequence of two tokens",
            found=f"{len(request.texts)} texts",
            remedy="give more calibration text",
        )
        raise ConfigurationError(problem)
    return chunks


def _strung(tokenizer: Any, request: ImportanceRequest) -> Iterator[list[int]]:  # noqa: ANN401 - transformers'
    start: Sequence[int] = tokenizer("a")["input_ids"][:1]
    start = start if start == [tokenizer.bos_token_id] else []
    room = request.chunk_tokens - len(start)
    held: list[int] = []
    for text in request.texts:
        held += tokenizer(text, add_special_tokens=False)["input_ids"]
        while len(held) >= room:
            yield [*start, *held[:room]]
            held = held[room:]
    if len(held) > 1:
        yield [*start, *held]


def _tokenizer(directory: Path) -> Any:  # noqa: ANN401 - transformers'
    found = "none of them"
    # without any of these, transformers 5 makes a tokenizer that knows no word
    if any((directory / name).is_file() for name in _TOKENIZER_FILES):
        with quiet_transformers():
            from transformers import AutoTokenizer

            try:
                return AutoTokenizer.from_pretrained(
                    directory, local_files_only=True, trust_remote_code=False
                )
            except Exception as error:  # the vendor raises many types
                found = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    problem = Problem(
        where=str(directory),
        what="transformers cannot load the tokenizer",
        expected=" or ".join(_TOKENIZER_FILES),
        found=found,
        remedy="save it with tokenizer.save_pretrained(directory)",
    )
    raise ConfigurationError(problem)


def _say(answers: TextIO, value: object) -> None:
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
