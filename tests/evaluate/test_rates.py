from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from edgeship.evaluate.rates import measure_rates, rates_line
from edgeship.evaluate.speed import Clock
from edgeship.measurements import Rates
from edgeship.runtimes.llama import LlamaSession

models = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "tiny_text_models.py")))

MS = 1_000_000
PROMPT = list(range(3, 131))
WHERE = {"cpu": "AMD EPYC", "runtime": "llama-cpp-python", "version": "0.3.36"}
RATES = Rates(
    prompt_tokens_per_s=309.7,
    generated_tokens_per_s=85.2,
    prompt_tokens=128,
    generated_tokens=32,
    threads=1,
    rounds=7,
    spread=(80.0, 90.0),
)


class Reader:
    """A session on a host whose time passes only while tokens are run."""

    threads = 1

    def __init__(
        self, *, read_ms: float, write_ms: float, away: Callable[[int], float] = lambda _: 0.0
    ) -> None:
        """Times of a token; `away` is how long the CPU is elsewhere in a round, in ms."""
        self.read_ns, self.write_ns, self.away = read_ms * MS, write_ms * MS, away
        self.wall = self.cpu = 0.0
        self.rounds: list[tuple[int, int]] = []

    @property
    def clock(self) -> Clock:
        return Clock(wall_ns=lambda: int(self.wall), cpu_ns=lambda: int(self.cpu))

    def greedy_tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        self.wall += self.away(len(self.rounds)) * MS
        self.rounds.append((len(ids), count - 1))
        self._pass(len(ids) * self.read_ns)
        yield 7
        for _ in range(count - 1):
            self._pass(self.write_ns)
            yield 7

    def _pass(self, ns: float) -> None:
        self.wall += ns
        self.cpu += ns


def test_reading_and_writing_are_timed_apart() -> None:
    session = Reader(read_ms=0.5, write_ms=4)
    found = measure_rates(session, PROMPT, clock=session.clock)
    assert (found.prompt_tokens_per_s, found.generated_tokens_per_s) == (2000.0, 250.0)
    assert (found.prompt_tokens, found.generated_tokens, found.threads) == (128, 32, 1)
    assert found.spread == (250.0, 250.0)


def test_warm_up_is_left_out() -> None:
    session = Reader(read_ms=0.5, write_ms=4)
    slow_until = 5  # the first one, and one of each size

    def greedy_tokens(ids: Sequence[int], count: int) -> Iterator[int]:
        session.cpu += 500 * MS * (len(session.rounds) < slow_until)
        return Reader.greedy_tokens(session, ids, count)

    session.greedy_tokens = greedy_tokens  # type: ignore[method-assign]
    found = measure_rates(session, PROMPT, clock=session.clock)
    assert session.rounds[:5] == [(16, 4), (16, 4), (32, 8), (64, 16), (128, 32)]
    assert len(session.rounds) == found.rounds + 5
    assert (found.prompt_tokens_per_s, found.generated_tokens_per_s) == (2000.0, 250.0)


def test_other_processes_do_not_count() -> None:
    session = Reader(read_ms=0.5, write_ms=4, away=lambda number: 100 * (number % 3))
    found = measure_rates(session, PROMPT, clock=session.clock)
    assert (found.prompt_tokens_per_s, found.generated_tokens_per_s) == (2000.0, 250.0)


def test_the_middle_round_is_told_with_its_quartiles() -> None:
    session = Reader(read_ms=1, write_ms=10)
    times = iter([10] * 5 + [10, 20, 40, 50, 80])  # ms of a written token

    def greedy_tokens(ids: Sequence[int], count: int) -> Iterator[int]:
        session.write_ns = next(times) * MS
        return Reader.greedy_tokens(session, ids, count)

    session.greedy_tokens = greedy_tokens  # type: ignore[method-assign]
    # the five rounds take 128 ms each and 320, 640, 1280, 1600, 2560
    found = measure_rates(session, PROMPT, limit_s=4.4, clock=session.clock)
    assert found.rounds == 5
    assert found.generated_tokens_per_s == 25.0
    assert found.spread == (20.0, 50.0)


def test_a_small_model_gets_the_most_rounds() -> None:
    session = Reader(read_ms=0.01, write_ms=0.1)
    assert measure_rates(session, PROMPT, clock=session.clock).rounds == 21


def test_a_middling_model_ends_at_the_limit() -> None:
    session = Reader(read_ms=1, write_ms=4)  # 256 ms a round
    found = measure_rates(session, PROMPT, clock=session.clock)
    assert found.rounds == 12
    assert session.wall <= 6e9


def test_a_slow_model_reads_less() -> None:
    session = Reader(read_ms=10, write_ms=20)  # 1920 ms of all tokens
    found = measure_rates(session, PROMPT, clock=session.clock)
    assert (found.prompt_tokens, found.generated_tokens) == (64, 16)
    assert found.prompt_tokens_per_s == pytest.approx(100)
    assert session.wall <= 6e9


def test_a_very_slow_model_takes_five_small_rounds() -> None:
    session = Reader(read_ms=200, write_ms=500)
    found = measure_rates(session, PROMPT, clock=session.clock)
    assert session.rounds == [(16, 4)] * 5
    assert found.rounds == 3
    assert found.generated_tokens_per_s == pytest.approx(2)


def test_a_slow_first_round_does_not_make_the_prompt_short() -> None:
    session = Reader(read_ms=0.5, write_ms=4, away=lambda number: 20_000 * (number == 0))
    assert measure_rates(session, PROMPT, clock=session.clock).prompt_tokens == 128


def test_one_token_each_can_be_timed() -> None:
    session = Reader(read_ms=1, write_ms=2)
    found = measure_rates(session, [5], generated=1, clock=session.clock)
    assert (found.prompt_tokens_per_s, found.generated_tokens_per_s) == (1000.0, 500.0)


def test_runs_that_the_clock_cannot_see_end() -> None:
    session = Reader(read_ms=0, write_ms=0)
    assert measure_rates(session, PROMPT, clock=session.clock).generated_tokens_per_s > 0


@pytest.mark.parametrize(
    ("threads", "prompt", "generated"), [(2, PROMPT, 32), (1, [], 32), (1, PROMPT, 0)]
)
def test_what_has_no_rate_is_refused(threads: int, prompt: list[int], generated: int) -> None:
    session = Reader(read_ms=1, write_ms=1)
    session.threads = threads
    with pytest.raises(ValueError, match="tokens"):
        measure_rates(session, prompt, generated=generated, clock=session.clock)


@pytest.mark.slow
def test_a_real_file_is_timed(tmp_path: Path) -> None:
    models.write_llama(tmp_path)
    session = LlamaSession(models.write_llama_gguf(tmp_path, tmp_path / "model.gguf"))
    found = measure_rates(session, PROMPT[:40], generated=8, limit_s=0.0)
    assert (found.prompt_tokens, found.generated_tokens, found.rounds) == (5, 1, 3)
    assert found.prompt_tokens_per_s > 0
    assert found.generated_tokens_per_s > 0


def test_the_line_says_where() -> None:
    assert rates_line(RATES, where=WHERE) == (
        "reads 310 tokens/s and writes 85 tokens/s here "
        "(AMD EPYC, llama-cpp-python 0.3.36, 1 thread); this is no measurement of the board"
    )


def test_slow_rates_keep_two_digits() -> None:
    slow = replace(RATES, prompt_tokens_per_s=9.44, generated_tokens_per_s=0.0512)
    assert "reads 9.4 tokens/s and writes 0.051 tokens/s" in rates_line(slow, where=WHERE)
