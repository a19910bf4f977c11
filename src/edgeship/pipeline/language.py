"""The stages of a language model: importance, the better of two files, tokens, and evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.budget import is_match
from edgeship.calibration.importance_process import importance_in_process
from edgeship.errors import ConfigurationError
from edgeship.evaluate.golden_tokens import PROMPTS, TokenCase, write_token_pack
from edgeship.evaluate.language import LanguageMeasurement, cut_chunks, measure_language
from edgeship.evidence import Evidence, describe_host, utc_now
from edgeship.pipeline.data import Data, ProjectData
from edgeship.pipeline.evaluation import COMMAND, write_evidence
from edgeship.pipeline.stages import (
    IMPORTANCE_NAME,
    model_file,
    read_payload,
    write_golden_names,
)
from edgeship.project import FactorySource, Project
from edgeship.runtimes.protocol import load_runtime, runtime_package
from edgeship.source.encoder import is_causal
from edgeship.story import Progress
from edgeship.vocabulary import Place, Rung

if TYPE_CHECKING:
    from edgeship.runtimes.llama import LlamaSession
    from edgeship.source.model import Model

RUNTIME: Final = "llama.cpp"
_NOTES_NAME: Final = "notes.json"
_CHOICE_NAME: Final = "choice.json"
_SCORED: Final = 5
"""Of the representative texts, each fifth is kept to choose by, and the others make importance."""
_TOKENS: Final = 8192
"""Most tokens that are predicted: KL divergence of ten thousand is stable to a few percent."""


def is_language(project: Project) -> bool:
    """Whether the model is a causal language model, which goes through these stages."""
    source = project.model.source
    if isinstance(source, FactorySource) or source.kind != "hf":
        return False
    try:
        return is_causal(source.path)
    except ConfigurationError:
        return False  # the exporter's problems say what is wrong


def importance_texts(data: ProjectData) -> tuple[str, ...]:
    """The representative texts that importance is made of."""
    texts = data.texts(Data.CALIBRATION)
    return tuple(text for index, text in enumerate(texts) if index % _SCORED != _SCORED - 1)


def scored_texts(data: ProjectData) -> tuple[str, ...]:
    """The representative texts that the better file is chosen by."""
    return data.texts(Data.CALIBRATION)[_SCORED - 1 :: _SCORED]


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


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which of two files is closer to the float model, by mean KL divergence in nats."""

    plain: float
    weighted: float
    tokens: int

    @property
    def takes_importance(self) -> bool:
        """The file without, where both are equal."""
        return self.weighted < self.plain

    def note(self) -> str:
        """A line for people."""
        taken = "taken" if self.takes_importance else "not taken"
        return (
            f"importance matrix {taken}: KL divergence from the float model {self.weighted:.5f} "
            f"with it, {self.plain:.5f} without ({self.tokens} tokens of representative text "
            "that it was not made of)"
        )


def choose(
    model: Model,
    candidates: Sequence[Path],
    texts: Sequence[str],
    length: int,
    directory: Path,
    progress: Progress,
) -> None:
    """Two emitted files x texts -> Choice; `candidates` are without and with importance."""
    measured = []
    for index, emitted in enumerate(candidates):

        def tell(done: int, total: int, index: int = index) -> None:
            progress(done + index * total, 2 * total)

        measured.append(_measure(model, emitted, texts, length, tell))
    plain, weighted = measured
    value = {"plain": plain.kld, "weighted": weighted.kld, "tokens": plain.tokens}
    (directory / _CHOICE_NAME).write_text(json.dumps(value), encoding="utf-8")


def read_choice(directory: Path) -> Choice:
    """What `choose` wrote."""
    return Choice(**json.loads((directory / _CHOICE_NAME).read_bytes()))


def golden_tokens(model: Model, emitted: Path, texts: Sequence[str], directory: Path) -> None:
    """File -> golden pack: prompts with the tokens that follow, of the file and the float model."""
    from edgeship.source.causal import greedy_tokens

    session = _open(emitted)
    cases = []
    for index, text in enumerate(texts[:PROMPTS]):
        prompt = session.tokenize(text)[: TokenCase.PROMPT_TOKENS]
        cases.append(
            TokenCase(
                name=f"text {index}",
                prompt=tuple(prompt),
                artifact=tuple(session.greedy(prompt, TokenCase.TOKENS)),
                reference=tuple(greedy_tokens(model.module, prompt, TokenCase.TOKENS)),
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
    evidence = Evidence(
        rung=Rung.RUNS,
        place=Place.HOST,
        stand_in=False,
        where={
            **describe_host(),
            "runtime": runtime_package(RUNTIME),
            "version": load_runtime(RUNTIME).version() or "absent",
        },
        metrics={},
        samples=PROMPTS,
        ci95=None,
        data_sha256=data.probes_sha256,
        command=COMMAND,
        at=utc_now(),
    )
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
    write_evidence(directory, evidence)


def _measure(
    model: Model, emitted: Path, texts: Sequence[str], length: int, progress: Progress
) -> LanguageMeasurement:
    from edgeship.source.causal import logit_blocks

    session = _open(emitted)
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


def _open(emitted: Path) -> LlamaSession:
    session: Any = load_runtime(RUNTIME).open(model_file(emitted, read_payload(emitted)))
    opened: LlamaSession = session
    return opened
