"""The stages of a language model: importance, the better of two files, tokens, and evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.accuracy import is_match
from edgeship.calibration.importance_process import importance_in_process
from edgeship.evaluate.golden_tokens import PROMPTS, TokenCase, write_token_pack
from edgeship.evaluate.language import LanguageMeasurement, chunk_loss, cut_chunks, measure_language
from edgeship.evaluate.rates import measure_rates
from edgeship.measurements import Rates
from edgeship.pipeline.board_sample import KnownTexts
from edgeship.pipeline.choice import Loss
from edgeship.pipeline.data import Data, ProjectData
from edgeship.pipeline.evaluation import host_evidence, write_evidence
from edgeship.pipeline.stages import (
    IMPORTANCE_NAME,
    model_file,
    read_payload,
    write_golden_names,
)
from edgeship.project import Project
from edgeship.runtimes.protocol import load_runtime
from edgeship.story import Progress
from edgeship.vocabulary import Rung

if TYPE_CHECKING:
    from edgeship.runtimes.llama import LlamaSession
    from edgeship.source.model import Model

RUNTIME: Final = "llama.cpp"
_NOTES_NAME: Final = "notes.json"
_LOSSES_NAME: Final = "losses.json"
_CHUNK: Final = 128
_CHUNKS: Final = 16
"""A choice: 2048 tokens, which is what a board can read in the time of a test."""
_MEASURE: Final = "KL divergence from the float model"
_TIMED: Final = 128
"""A choice: tokens of the prompt by which a file is timed."""
_TOKENS: Final = 8192
"""Most tokens that are predicted: KL divergence of ten thousand is stable to a few percent."""


def observe_importance(
    checkpoint: Path, texts: Sequence[str], dataset: str, directory: Path, progress: Progress
) -> None:
    """Checkpoint x representative texts -> Importance, in a process of its own."""
    run = importance_in_process(
        checkpoint, texts, directory / IMPORTANCE_NAME, dataset=dataset, on_progress=progress
    )
    (directory / _NOTES_NAME).write_text(json.dumps(run.notes), encoding="utf-8")


def read_importance_notes(directory: Path) -> tuple[str, ...]:
    """What `observe_importance` has to say."""
    return tuple(json.loads((directory / _NOTES_NAME).read_bytes()))


def language_loss(
    model: Model, emitted: Path, texts: Sequence[str], length: int, progress: Progress
) -> Loss:
    """Mean KL divergence over the texts, cut into chunks of `length` tokens."""
    measured = _measure(model, emitted, texts, length, progress)
    return Loss(value=measured.kld, count=measured.tokens, measure=_MEASURE, unit="tokens")


def golden_tokens(model: Model, emitted: Path, texts: Sequence[str], directory: Path) -> None:
    """File -> golden pack: prompts with the tokens that follow, of the file and the float model."""
    from edgeship.source.causal import greedy_tokens, logit_blocks

    session = open_session(emitted)
    cases = []
    for index, text in enumerate(texts[:PROMPTS]):
        prompt = session.tokenize(text)[: TokenCase.PROMPT_TOKENS]
        cases.append(
            TokenCase(
                name=f"text {index}",
                prompt=tuple(prompt),
                artifact=tuple(session.greedy(prompt, TokenCase.TOKENS)),
                reference=tuple(greedy_tokens(model.module, prompt, TokenCase.TOKENS)),
                artifact_logits=session.logits(prompt)[-1],
                reference_logits=list(logit_blocks(model.module, prompt))[-1][-1],
            )
        )
    session.close()
    write_golden_names(directory, write_token_pack(directory, cases))


def evaluate_language(
    project: Project,
    model: Model,
    emitted: Path,
    data: ProjectData,
    directory: Path,
    progress: Progress,
) -> None:
    """File against float model on held-out text -> Evidence; without, that it ran."""
    evidence = host_evidence(RUNTIME, data)
    text = project.model.text
    if project.evaluation is not None and text is not None:
        texts = data.texts(Data.EVALUATION)
        measured = _measure(model, emitted, texts, text.length, progress).measurement()
        matches = is_match(measured.metrics, project.evaluation.metric)
        evidence = replace(
            evidence,
            rung=Rung.MATCHES if matches else Rung.RUNS,
            metrics=measured.metrics,
            samples=measured.samples,
            ci95=measured.ci95,
            data_sha256=data.evaluation_sha256,
        )
    texts = data.texts(Data.EVALUATION) or data.texts(Data.CALIBRATION)
    write_evidence(directory, replace(evidence, rates=_rates(emitted, texts)))


def reference_losses(
    model: Model,
    emitted: Path,
    texts: Sequence[str],
    length: int,
    directory: Path,
    progress: Progress,
) -> None:
    """Held-out text -> chunks of tokens, and what the float model loses on each.

    Args:
        model: The float model.
        emitted: The file, which has the tokenizer.
        texts: Held-out.
        length: Tokens that the project gives a text.
        directory: Where the result goes.
        progress: Told of each chunk.
    """
    from edgeship.source.causal import logit_blocks

    session = open_session(emitted)
    try:
        start = session.tokenize("")
        ids = session.tokenize("\n\n".join(texts), add_special=False)[: _CHUNK * _CHUNKS]
    finally:
        session.close()
    size = min(length, _CHUNK, len(ids) + len(start))
    chunks = cut_chunks(ids, size, start[0] if start else None)[:_CHUNKS]
    losses = []
    for chunk in chunks:
        losses.append(chunk_loss(chunk, logit_blocks(model.module, chunk)))
        progress(len(losses), len(chunks))
    text = json.dumps({"chunks": chunks, "losses": losses})
    (directory / _LOSSES_NAME).write_text(text, encoding="utf-8")


def read_text_sample(directory: Path, count: int) -> KnownTexts:
    """The first `count` chunks of what `reference_losses` wrote."""
    value = json.loads((directory / _LOSSES_NAME).read_bytes())
    return KnownTexts(chunks=value["chunks"][:count], loss=sum(value["losses"][:count]))


def _rates(emitted: Path, texts: Sequence[str]) -> Rates | None:
    """How fast the file continues the beginning of the texts; None without any."""
    session = open_session(emitted)
    try:
        prompt = session.tokenize("\n\n".join(texts))[:_TIMED] if texts else []
        return measure_rates(session, prompt) if prompt else None
    finally:
        session.close()


def _measure(
    model: Model, emitted: Path, texts: Sequence[str], length: int, progress: Progress
) -> LanguageMeasurement:
    from edgeship.source.causal import logit_blocks

    session = open_session(emitted)
    start = session.tokenize("")
    ids = session.tokenize("\n\n".join(texts), add_special=False)[:_TOKENS]
    chunks = cut_chunks(ids, min(length, len(ids) + len(start)), start[0] if start else None)
    try:
        return measure_language(
            chunks,
            session.logit_blocks,
            lambda chunk: logit_blocks(model.module, chunk),
            on_progress=progress,
        )
    finally:
        session.close()


def open_session(emitted: Path) -> LlamaSession:
    """The emitted file in llama.cpp."""
    session: Any = load_runtime(RUNTIME).open(model_file(emitted, read_payload(emitted)))
    opened: LlamaSession = session
    return opened
