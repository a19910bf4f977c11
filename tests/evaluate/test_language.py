import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgeship.errors import ExportFailed
from edgeship.evaluate.language import (
    Blocks,
    cut_chunks,
    measure_greedy,
    measure_language,
)
from edgeship.vocabulary import Metric

VOCABULARY = 50
GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.standard_normal((VOCABULARY, VOCABULARY)).astype(np.float32) * 3
NOISE = GENERATOR.standard_normal((VOCABULARY, VOCABULARY)).astype(np.float32)
CHUNKS = [GENERATOR.integers(0, VOCABULARY, 40).tolist() for _ in range(5)]


def bigrams(table: np.ndarray, rows: int = 1000) -> Blocks:
    """A model that knows the last token alone, and gives its logits in blocks of `rows`."""

    def blocks(ids: Sequence[int]) -> Iterable[np.ndarray]:
        logits = table[list(ids)]
        for start in range(0, len(ids), rows):
            yield logits[start : start + rows]

    return blocks


REFERENCE, ARTIFACT = bigrams(TABLE), bigrams(TABLE + NOISE)


def torch_losses(table: np.ndarray) -> torch.Tensor:
    logits = torch.tensor(table, dtype=torch.float64)
    return torch.stack(
        [
            functional.cross_entropy(logits[chunk[:-1]], torch.tensor(chunk[1:]), reduction="none")
            for chunk in CHUNKS
        ]
    )


def torch_kld() -> torch.Tensor:
    log_q, log_p = (
        functional.log_softmax(torch.tensor(table, dtype=torch.float64), dim=1)
        for table in (TABLE + NOISE, TABLE)
    )
    rows = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return torch.stack([rows[chunk[:-1]] for chunk in CHUNKS])


# Divergence and perplexity


def test_divergence_is_torchs_kl_div() -> None:
    found = measure_language(CHUNKS, ARTIFACT, REFERENCE)
    wanted = torch_kld().numpy()
    assert found.tokens == wanted.size == 5 * 39
    assert found.kld == pytest.approx(wanted.mean(), rel=1e-12)
    assert found.kld_max == pytest.approx(wanted.max(), rel=1e-12)
    assert found.kld_p99 == pytest.approx(np.quantile(wanted, 0.99), rel=1e-12)


def test_perplexities_are_those_of_torchs_cross_entropy() -> None:
    found = measure_language(CHUNKS, ARTIFACT, REFERENCE)
    own, other = torch_losses(TABLE + NOISE).mean(), torch_losses(TABLE).mean()
    assert found.perplexity == pytest.approx(math.exp(own), rel=1e-12)
    assert found.reference_perplexity == pytest.approx(math.exp(other), rel=1e-12)


def test_agreement_counts_the_most_likely_tokens() -> None:
    same = (TABLE + NOISE).argmax(1) == TABLE.argmax(1)
    wanted = np.mean([same[chunk[:-1]] for chunk in CHUNKS])
    found = measure_language(CHUNKS, ARTIFACT, REFERENCE)
    assert 0 < wanted < 1
    assert found.agreement == pytest.approx(wanted)
    assert found.agreement_ci95[0] < found.agreement < found.agreement_ci95[1]


def test_a_model_does_not_diverge_from_itself() -> None:
    found = measure_language(CHUNKS, REFERENCE, REFERENCE)
    assert (found.kld, found.kld_max, found.agreement) == (0, 0, 1)
    assert found.perplexity == found.reference_perplexity
    assert found.perplexity_ratio_ci95 == (1, 1)


@pytest.mark.parametrize(("own", "other"), [(1, 7), (7, 3), (40, 1), (39, 40)])
def test_blocks_may_be_of_any_size(own: int, other: int) -> None:
    whole = measure_language(CHUNKS, ARTIFACT, REFERENCE)
    parts = measure_language(CHUNKS, bigrams(TABLE + NOISE, own), bigrams(TABLE, other))
    assert parts.kld == pytest.approx(whole.kld, rel=1e-14)
    assert parts.agreement == whole.agreement


def test_large_logits_do_not_overflow() -> None:
    table = np.zeros((2, 3), np.float32)
    table[:, 0] = 3e38
    found = measure_language([[0, 1]], bigrams(table), bigrams(-table))
    assert found.kld == pytest.approx(3e38)
    assert found.perplexity == math.exp(700)
    assert found.agreement == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused_with_their_side(bad: float) -> None:
    broken = TABLE.copy()
    broken[CHUNKS[1][3]] = bad
    with pytest.raises(ExportFailed, match="the artifact gives logits that are NaN or inf"):
        measure_language(CHUNKS, bigrams(broken), REFERENCE)
    with pytest.raises(ExportFailed, match="the float model gives logits"):
        measure_language(CHUNKS[1:2], ARTIFACT, bigrams(broken))


# Intervals


def test_the_interval_is_students_over_the_chunks() -> None:
    found = measure_language(CHUNKS, ARTIFACT, REFERENCE)
    means = torch_kld().mean(1).numpy()
    half = 2.7764 * means.std(ddof=1) / math.sqrt(5)  # Student's t, 4 degrees, 97.5 %
    assert found.kld_ci95 is not None
    assert found.kld_ci95 == pytest.approx((means.mean() - half, means.mean() + half), rel=1e-3)
    ratios = (torch_losses(TABLE + NOISE) - torch_losses(TABLE)).mean(1).numpy()
    half = 2.7764 * ratios.std(ddof=1) / math.sqrt(5)
    wanted = tuple(np.exp([ratios.mean() - half, ratios.mean() + half]))
    assert found.perplexity_ratio_ci95 == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("chunks", "quantile", "error"), [(3, 4.3027, 0.01), (11, 2.2281, 1e-4), (31, 2.0423, 1e-4)]
)
def test_the_quantile_is_that_of_the_tables(chunks: int, quantile: float, error: float) -> None:
    texts = [[index, index + 1] for index in range(chunks)]
    found = measure_language(texts, ARTIFACT, REFERENCE)
    all_rows = {tuple(chunk): measure_language([chunk], ARTIFACT, REFERENCE).kld for chunk in texts}
    means = np.array(list(all_rows.values()))
    assert found.kld_ci95 is not None
    width = found.kld_ci95[1] - found.kld_ci95[0]
    wanted = 2 * quantile * means.std(ddof=1) / math.sqrt(chunks)
    assert width == pytest.approx(wanted, rel=error)


def test_two_chunks_have_no_interval() -> None:
    found = measure_language(CHUNKS[:2], ARTIFACT, REFERENCE)
    assert found.kld_ci95 is None
    assert found.perplexity_ratio_ci95 is None


# Evidence, progress, chunks


def test_the_measurement_is_what_evidence_takes() -> None:
    found = measure_language(CHUNKS, ARTIFACT, REFERENCE)
    measurement = found.measurement()
    assert measurement.metrics == {
        Metric.PERPLEXITY: found.perplexity,
        Metric.REFERENCE_PERPLEXITY: found.reference_perplexity,
        Metric.KLD: found.kld,
        Metric.AGREEMENT: found.agreement,
    }
    assert (measurement.samples, measurement.ci95) == (found.tokens, found.agreement_ci95)


def test_progress_counts_chunks() -> None:
    told: list[tuple[int, int]] = []
    measure_language(
        CHUNKS[:2], ARTIFACT, REFERENCE, on_progress=lambda done, count: told.append((done, count))
    )
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("count", "bos", "wanted"),
    [
        (7, 99, [[99, 0, 1], [99, 2, 3], [99, 4, 5]]),
        (7, None, [[0, 1, 2], [3, 4, 5]]),
        (6, None, [[0, 1, 2], [3, 4, 5]]),
        (1, 99, []),
    ],
)
def test_chunks_are_whole(count: int, bos: int | None, wanted: list[list[int]]) -> None:
    assert cut_chunks(list(range(count)), 3, bos) == wanted


# Greedy


def test_greedy_tokens_agree_until_the_first_that_differs() -> None:
    following = TABLE.argmax(1)

    def continued(prompt: Sequence[int], count: int) -> list[int]:
        ids = list(prompt)
        for _ in range(count):
            ids.append(int(following[ids[-1]]))
        return ids[len(prompt) :]

    def wrong_at_second(prompt: Sequence[int], count: int) -> list[int]:
        given = continued(prompt, count)
        if prompt[0] == 7:
            given[1] = (given[1] + 1) % VOCABULARY
        return given

    prompts = [[3, 4], [7, 8, 9]]
    same = measure_greedy(prompts, continued, bigrams(TABLE, 2), count=6)
    assert (same.tokens, same.agreed, same.prompts, same.identical) == (12, 12, 2, 2)
    other = measure_greedy(prompts, wrong_at_second, bigrams(TABLE, 2), count=6)
    assert (other.tokens, other.agreed, other.prompts, other.identical) == (12, 7, 2, 1)
