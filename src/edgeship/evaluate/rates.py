"""Rates: how many tokens a language model reads and writes in a second on this host."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from edgeship.evaluate.speed import Clock
from edgeship.measurements import Rates

_PARTS: Final = (8, 4, 2, 1)
"""Of prompt and continuation: a round has an eighth, and twice as much as long as that fits.
Of 80 million weights in Q4_K_M, an eighth was read at 0.95 times the rate of all 128 tokens, and 4
tokens were written at 1.11 times the rate of 32 (measured: medians of 12 rounds whose quartiles are
further apart, with llama-cpp-python 0.3.36)."""
_FEWEST_ROUNDS: Final = 3
_MOST_ROUNDS: Final = 21
"""Choices: a median needs three, and a small model is not better known after a second."""


class Writer(Protocol):
    """What continues a prompt token by token: `LlamaSession`."""

    threads: int

    def greedy_tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """The first token comes after the whole prompt was run, each other after the one before."""
        ...


def measure_rates(
    session: Writer,
    prompt_ids: Sequence[int],
    *,
    generated: int = 32,
    limit_s: float = 3.0,
    clock: Clock | None = None,
) -> Rates:
    """Time a prompt and its continuation apart, in rounds, after warm-up.

    Tokens are counted per second of CPU time, as in `compare_speed`: beside three busy processes on
    two cores, rates by CPU time fell to 0.84 and 0.90, by wall time to 0.23 and 0.29 (measured).
    All of it takes about twice the limit at most, or five rounds of an eighth where those are long.

    Args:
        session: On one thread.
        prompt_ids: Of one prompt, special tokens included; at least one.
        generated: Tokens after the prompt, >= 1, each of which takes a run of its own.
        limit_s: No further round begins after this, once there were 3; warm-up comes before.
        clock: For tests.

    Raises:
        ValueError: Several threads, whose CPU times would be added up, or nothing to measure.
    """
    if session.threads != 1 or not prompt_ids or generated < 1:
        message = f"{session.threads} threads, {len(prompt_ids)} + {generated} tokens"
        raise ValueError(message)
    clock = clock or Clock()
    prompt, count = _fitting(session, prompt_ids, generated, limit_s, clock)
    rounds: list[tuple[int, int]] = []
    start = clock.wall_ns()
    while len(rounds) < _MOST_ROUNDS:
        if len(rounds) >= _FEWEST_ROUNDS and clock.wall_ns() - start >= limit_s * 1e9:
            break
        rounds.append(_time_round(session, prompt, count, clock))
    read = [len(prompt) / (read_ns / 1e9) for read_ns, _ in rounds]
    low, written, high = statistics.quantiles(
        [count / (written_ns / 1e9) for _, written_ns in rounds], n=4, method="inclusive"
    )
    return Rates(
        prompt_tokens_per_s=statistics.median(read),
        generated_tokens_per_s=written,
        prompt_tokens=len(prompt),
        generated_tokens=count,
        threads=session.threads,
        rounds=len(rounds),
        spread=(low, high),
    )


def rates_line(rates: Rates, *, where: Mapping[str, str]) -> str:
    """The rates as a line for people.

    Args:
        rates: Of a file.
        where: As in `Evidence.where`: `cpu`, `runtime`, `version`.
    """
    host = ", ".join(
        [
            where.get("cpu", "this host"),
            f"{where.get('runtime', '')} {where.get('version', '')}".strip(),
            f"{rates.threads} thread{'' if rates.threads == 1 else 's'}",
        ]
    )
    return (
        f"reads {_rounded(rates.prompt_tokens_per_s)} tokens/s and writes "
        f"{_rounded(rates.generated_tokens_per_s)} tokens/s here ({host}); "
        "this is no measurement of the board"
    )


def _fitting(
    session: Writer, prompt_ids: Sequence[int], generated: int, limit_s: float, clock: Clock
) -> tuple[Sequence[int], int]:
    """Warm a file up with ever more tokens, up to those of which the fewest rounds fit the limit.

    The first round also makes the context and reads the file from the disk: it decides nothing.
    """
    sizes = [(_share(len(prompt_ids), part), _share(generated, part)) for part in _PARTS]
    chosen = sizes[0]
    _time_round(session, prompt_ids[: chosen[0]], chosen[1], clock)
    for larger in [*sizes[1:], None]:
        start = clock.wall_ns()
        _time_round(session, prompt_ids[: chosen[0]], chosen[1], clock)
        taken = clock.wall_ns() - start
        if larger is None or 2 * taken * _FEWEST_ROUNDS > limit_s * 1e9:
            break
        chosen = larger
    return prompt_ids[: chosen[0]], chosen[1]


def _share(count: int, part: int) -> int:
    return -(-count // part)


def _time_round(
    session: Writer, prompt: Sequence[int], count: int, clock: Clock
) -> tuple[int, int]:
    """CPU time of the prompt, and of `count` further runs of a token, in ns.

    At least one step of the clock each: a run that it cannot see takes no less than that.
    """
    tokens = session.greedy_tokens(prompt, count + 1)
    start = clock.cpu_ns()
    next(tokens)
    read = clock.cpu_ns()
    for _ in tokens:
        pass
    return max(read - start, 1), max(clock.cpu_ns() - read, 1)


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
