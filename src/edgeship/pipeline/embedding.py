"""The stages of an encoder in llama.cpp, where they are others than a language model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgeship.evaluate.outputs import collect_outputs
from edgeship.pipeline.choice import Loss
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.evaluation import host_evidence, measured_evidence, write_evidence
from edgeship.pipeline.language import RUNTIME, open_session
from edgeship.project import Project
from edgeship.story import Progress

if TYPE_CHECKING:
    from edgeship.source.model import Model

_MEASURE: Final = "cosine distance from the float model's embeddings"


def embedding_loss(
    model: Model, emitted: Path, texts: Sequence[str], length: int, progress: Progress
) -> Loss:
    """Mean of 1 - cosine over the texts, each cut to `length` tokens."""
    session = open_session(emitted)
    names = [spec.name for spec in model.contract.inputs]
    distances = []
    try:
        for done, text in enumerate(texts):
            ids = np.array([session.tokenize(text)[:length]], np.int64)
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            inputs = {name: given.get(name, np.zeros_like(ids)) for name in names}
            (own,) = session.run(inputs).values()
            (other,) = model.run(inputs).values()
            distances.append(1.0 - _cosine(own.ravel(), other.ravel()))
            progress(done + 1, len(texts))
    finally:
        session.close()
    return Loss(value=float(np.mean(distances)), count=len(texts), measure=_MEASURE, unit="texts")


def evaluate_embeddings(
    project: Project,
    model: Model,
    emitted: Path,
    data: ProjectData,
    directory: Path,
    progress: Progress,
) -> None:
    """File against float model on evaluation data -> Evidence; without, that it ran."""
    evidence = host_evidence(RUNTIME, data)
    if project.evaluation is not None:
        session = open_session(emitted)
        try:
            outputs = collect_outputs(data.evaluation, session.run, on_progress=progress)
        finally:
            session.close()
        expected = collect_outputs(data.evaluation, model.run, on_progress=progress)
        evidence = measured_evidence(evidence, project, outputs, expected, data)
    write_evidence(directory, evidence)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
