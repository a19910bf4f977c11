"""Language: what a quantized language model makes of held-out text, against the float model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeship.errors import ExportFailed, Problem
from edgeship.evaluate.metrics import Measurement
from edgeship.intervals import wilson_interval
from edgeship.vocabulary import Metric

Blocks = Callable[[Sequence[int]], Iterable[np.ndarray]]
"""Logits float32[rows, vocabulary] after each token of one sequence, in order, in parts."""

_Z95: Final = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""
_FEWEST_CHUNKS: Final = 3
_LARGEST_LOSS: Final = 700.0
"""exp of 709.8 is infinite, which JSON cannot hold."""
_WORK_BYTES: Final = 16 << 20
"""A choice: of float64 numbers that are worked on at a time."""


@dataclass(frozen=True, kw_only=True)
class LanguageMeasurement:
    """An artifact against the float model over the same text; each token is predicted by both.

    Attributes:
        tokens: That were predicted.
        chunks: Into which the text was cut; nothing is remembered from one to the next.
        kld: Mean divergence of the artifact from the float model, KL(float || artifact), in nats.
        kld_ci95: Its interval, by the scatter of equal chunks; None for fewer than three.
        kld_p99: Divergence that 1 % of the tokens exceed.
        kld_max: The largest.
        agreement: Share of tokens with the same most likely one.
        agreement_ci95: Its interval.
        perplexity: exp of the mean negative log-likelihood of the text, of the artifact; at most
            exp(700).
        reference_perplexity: The same of the float model.
        perplexity_ratio_ci95: Of the first by the second, by the scatter of the chunks.
    """

    tokens: int
    chunks: int
    kld: float
    kld_ci95: tuple[float, float] | None
    kld_p99: float
    kld_max: float
    agreement: float
    agreement_ci95: tuple[float, float]
    perplexity: float
    reference_perplexity: float
    perplexity_ratio_ci95: tuple[float, float] | None

    def measurement(self) -> Measurement:
        """As evidence has it."""
        metrics = {
            Metric.PERPLEXITY: self.perplexity,
            Metric.REFERENCE_PERPLEXITY: self.reference_perplexity,
            Metric.KLD: self.kld,
            Metric.AGREEMENT: self.agreement,
        }
        return Measurement(metrics=metrics, samples=self.tokens, ci95=self.agreement_ci95)


@dataclass(frozen=True, kw_only=True)
class GreedyAgreement:
    """How far an artifact's own continuations are those of the float model.

    Attributes:
        tokens: That the artifact gave, over all prompts.
        agreed: Of these, up to the first of each prompt that the float model would not give.
        prompts: Number of prompts.
        identical: Prompts whose whole continuation is the float model's.
    """

    tokens: int
    agreed: int
    prompts: int
    identical: int


def cut_chunks(ids: Sequence[int], length: int, bos: int | None) -> list[list[int]]:
    """Whole chunks of `length` tokens, each behind BOS where the model knows one; the rest is lost.

    Args:
        ids: Of the text, without special tokens.
        length: >= 2, BOS included.
        bos: Its id; None for a model that was trained without.
    """
    start = [] if bos is None else [bos]
    step = length - len(start)
    return [[*start, *ids[at : at + step]] for at in range(0, len(ids) - step + 1, step)]


def measure_language(
    chunks: Sequence[Sequence[int]],
    artifact: Blocks,
    reference: Blocks,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> LanguageMeasurement:
    """Predict each token of each chunk but its first by both; memory is one block of logits each.

    Args:
        chunks: At least one, of two tokens at least; see `cut_chunks`.
        artifact: Its logits.
        reference: The float model's.
        on_progress: Told (done, all) after each chunk.

    Raises:
        ExportFailed: Logits of either that are NaN or infinite.
    """
    klds, losses, expected, agreed = [], [], [], 0
    for index, chunk in enumerate(chunks):
        parts = [
            _compare(own, other, chunk[at + 1 : at + 1 + len(own)], where=f"chunk {index}")
            for at, own, other in _aligned(artifact(chunk), reference(chunk), len(chunk) - 1)
        ]
        kld, loss, other_loss, same = (np.concatenate(item) for item in zip(*parts, strict=True))
        klds.append(kld)
        losses.append(loss)
        expected.append(other_loss)
        agreed += int(same.sum())
        on_progress(index + 1, len(chunks))
    return _summary(klds, losses, expected, agreed)


def chunk_loss(chunk: Sequence[int], logits: Iterable[np.ndarray]) -> float:
    """Sum of the negative log-likelihoods of each token of a chunk but the first, in nats.

    Args:
        chunk: Token ids, at least two.
        logits: float32[rows, vocabulary] after each of its tokens, in parts.
    """
    loss, at = 0.0, 1
    for block in logits:
        targets = chunk[at : at + len(block)]
        rows = _log_softmax(block[: len(targets)])
        loss -= float(rows[np.arange(len(targets)), targets].sum())
        at += len(block)
    return loss


def measure_greedy(
    prompts: Sequence[Sequence[int]],
    greedy: Callable[[Sequence[int], int], Sequence[int]],
    reference: Blocks,
    *,
    count: int,
) -> GreedyAgreement:
    """Continue each prompt with the artifact, and ask the float model for each token at once.

    The float model runs once for each prompt: up to the first token that it would not give, its own
    continuation is the artifact's.

    Args:
        prompts: Token ids, special ones included.
        greedy: The artifact's continuation of a prompt by so many tokens.
        reference: The float model's logits.
        count: Tokens for each prompt, >= 1.
    """
    agreed = identical = 0
    for prompt in prompts:
        given = np.array(greedy(prompt, count))
        answers = [rows.argmax(axis=1) for rows in reference([*prompt, *given[:-1].tolist()])]
        same = np.concatenate(answers)[len(prompt) - 1 :] == given
        until = len(same) if same.all() else int(same.argmin())
        agreed += until
        identical += until == len(same)
    return GreedyAgreement(
        tokens=count * len(prompts), agreed=agreed, prompts=len(prompts), identical=identical
    )


def _mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of independent values; None for fewer than three."""
    count = len(values)
    if count < _FEWEST_CHUNKS:
        return None
    centre = float(np.mean(values))
    half = _student95(count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return centre - half, centre + half


def _student95(freedom: int) -> float:
    """97.5th percentile of Student's t; 0.8 % too small for 2 degrees of freedom, 0.03 % for 4.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = _Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))


def _aligned(
    own: Iterable[np.ndarray], other: Iterable[np.ndarray], rows: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The first `rows` rows of two streams in common parts, with the number of the first row."""
    streams = [iter(own), iter(other)]
    held = [np.empty((0, 0)), np.empty((0, 0))]
    at = 0
    while at < rows:
        for side, stream in enumerate(streams):
            while not len(held[side]):
                held[side] = next(stream)
        width = held[0].shape[1]
        assert width == held[1].shape[1]  # both of one vocabulary
        count = min(len(held[0]), len(held[1]), rows - at, max(1, _WORK_BYTES // (8 * width)))
        yield at, held[0][:count], held[1][:count]
        held = [part[count:] for part in held]
        at += count


def _compare(
    own: np.ndarray, other: np.ndarray, targets: Sequence[int], *, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each row: divergence, both losses of the target, whether both give the same token."""
    for name, logits in (("the artifact", own), ("the float model", other)):
        if not np.isfinite(logits).all():
            problem = Problem(
                where=where,
                what=f"{name} gives logits that are NaN or infinite",
                found=f"{int((~np.isfinite(logits)).sum())} of {logits.size} values",
                remedy="check the weights, or choose a precision with more bits",
            )
            raise ExportFailed(problem)
    log_q, log_p = _log_softmax(own), _log_softmax(other)
    kld = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    rows = np.arange(len(targets))
    matches = own.argmax(axis=1) == other.argmax(axis=1)
    return kld, -log_q[rows, targets], -log_p[rows, targets], matches


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64, exact to a few roundings: the largest exponent is 0."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _summary(
    klds: Sequence[np.ndarray],
    losses: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    agreed: int,
) -> LanguageMeasurement:
    kld, loss, reference_loss = (np.concatenate(item) for item in (klds, losses, expected))
    ratio = _mean_interval([float((a - b).mean()) for a, b in zip(losses, expected, strict=True)])
    return LanguageMeasurement(
        tokens=len(kld),
        chunks=len(klds),
        kld=float(kld.mean()),
        kld_ci95=_mean_interval([float(item.mean()) for item in klds]),
        kld_p99=float(np.quantile(kld, 0.99)),
        kld_max=float(kld.max()),
        agreement=agreed / len(kld),
        agreement_ci95=wilson_interval(agreed, len(kld)),
        perplexity=_exp(loss.mean()),
        reference_perplexity=_exp(reference_loss.mean()),
        perplexity_ratio_ci95=None if ratio is None else (_exp(ratio[0]), _exp(ratio[1])),
    )


def _exp(loss: float) -> float:
    return math.exp(min(loss, _LARGEST_LOSS))
