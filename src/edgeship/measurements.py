"""Measurements: the shares, ratios and rates that evidence may hold beside its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ClassShare:
    """Top-1 within one class, of the artifact and of the float model, over `samples` samples."""

    name: str
    samples: int
    top1: float
    reference_top1: float

    @property
    def drop(self) -> float:
        """What the artifact lost, as a fraction; negative where it gained."""
        return self.reference_top1 - self.top1

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {
            "name": self.name,
            "samples": self.samples,
            "top1": self.top1,
            "reference_top1": self.reference_top1,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ClassShare:
        """Inverse of `to_json`."""
        return cls(**value)


@dataclass(frozen=True, kw_only=True)
class SpeedShare:
    """How long an artifact takes against its float file, run in turns on one machine.

    Attributes:
        float_ratio: CPU time over that of the float file, median; above 1 where it is slower.
        spread: Lower and upper quartile of that ratio.
        wall_ratio: The same of wall time, which other processes disturb.
        outside_delegate: Operators that the runtime's delegate takes in the float file and leaves
            in the artifact, by name.
        threads: Of the runtime.
        delegates: Of an artifact that is slower, where its runtime has a delegate: what that one
            takes and what the rest costs, in one line.
    """

    float_ratio: float
    spread: tuple[float, float]
    wall_ratio: float
    outside_delegate: Mapping[str, int]
    threads: int
    delegates: str = ""

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        told = {"delegates": self.delegates} if self.delegates else {}
        return {
            **told,
            "float_ratio": self.float_ratio,
            "spread": list(self.spread),
            "wall_ratio": self.wall_ratio,
            "outside_delegate": dict(self.outside_delegate),
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SpeedShare:
        """Inverse of `to_json`."""
        low, high = value["spread"]
        return cls(**{**value, "spread": (low, high)})


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How many tokens a language model takes in a second of one CPU, alone and after warm-up.

    Attributes:
        prompt_tokens_per_s: Of a prompt, whose tokens are run together: median over the rounds.
        generated_tokens_per_s: Of what follows, run token by token: the same.
        prompt_tokens: Length of the prompt.
        generated_tokens: Tokens that were run after it.
        threads: Of the runtime.
        rounds: How many times both were timed.
        spread: Lower and upper quartile of `generated_tokens_per_s`.
    """

    prompt_tokens_per_s: float
    generated_tokens_per_s: float
    prompt_tokens: int
    generated_tokens: int
    threads: int
    rounds: int
    spread: tuple[float, float]

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {
            "prompt_tokens_per_s": self.prompt_tokens_per_s,
            "generated_tokens_per_s": self.generated_tokens_per_s,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "threads": self.threads,
            "rounds": self.rounds,
            "spread": list(self.spread),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rates:
        """Inverse of `to_json`."""
        low, high = value["spread"]
        return cls(**{**value, "spread": (low, high)})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How an artifact ended on a board.

    Attributes:
        outcome: One word for it: "mismatch", "illegal-instruction", "out-of-memory", ...
        detail: A sentence for people.
    """

    outcome: str
    detail: str

    def to_json(self) -> dict[str, object]:
        """As in the manifest."""
        return {"outcome": self.outcome, "detail": self.detail}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Failure:
        """Inverse of `to_json`."""
        return cls(**value)
