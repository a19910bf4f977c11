"""Golden pack of a language model: prompts, the tokens that follow, and how likely each is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from edgeship.errors import ExportFailed, Problem
from edgeship.evaluate.golden import DIRECTORY, PACK_NAME, SCHEMA, GoldenFiles

PROMPTS: Final = 4
TOKENS: Final = "tokens"
LOGPROBS: Final = "logprobs"
_SAME: Final = 0.5
"""Share of tokens that another build of llama.cpp must give too. Kernels of ARM and x86 round
otherwise, and where two tokens are about equally likely the other one wins, which changes all after
it: of 40 continuations by 32 tokens, 35 were the same on both, and the others parted after 1 to 13
tokens (a trained Llama of 6 M parameters in f16 and four types of 4 and 5 bits, measured). More
than two of four parting at once is then less likely than 1 %; `kld` is the sharper test."""
_OWN_DIVERGENCE: Final = 5e-3
"""In nats. Between x86 and ARM the mean was 1.5e-5, 99 % were below 1.3e-4 and the largest of 3300
was 1.2e-3 (the same files, measured): four times that. What the same files lose against the float
model is of this size (mean 1.4e-3, largest 3e-2)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCase:
    """A prompt as token ids, special ones included, and what both make of it.

    Attributes:
        name: Of the text.
        prompt: Token ids.
        artifact: The file's greedy continuation.
        reference: The float model's.
        artifact_logits: float32[vocabulary] of the file after the prompt's last token.
        reference_logits: The same of the float model.
    """

    PROMPT_TOKENS: ClassVar[int] = 32
    TOKENS: ClassVar[int] = 32

    name: str
    prompt: tuple[int, ...]
    artifact: tuple[int, ...]
    reference: tuple[int, ...]
    artifact_logits: np.ndarray
    reference_logits: np.ndarray

    @property
    def agreed(self) -> float:
        """Share of equal tokens, up to the first that differs."""
        pairs = list(zip(self.artifact, self.reference, strict=True))
        until = next((at for at, (one, other) in enumerate(pairs) if one != other), len(pairs))
        return until / len(pairs)

    @property
    def divergence(self) -> float:
        """KL(float model || artifact) of the token after the prompt, in nats."""
        expected, given = (
            log_probabilities(logits).astype(np.float64)
            for logits in (self.reference_logits, self.artifact_logits)
        )
        return max(0.0, float((np.exp(expected) * (expected - given)).sum()))


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Natural logarithms of the softmax.

    Args:
        logits: float32[vocabulary], finite.

    Returns:
        float32[vocabulary], computed in float64.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max()
    result: np.ndarray = (shifted - np.log(np.exp(shifted).sum())).astype(np.float32)
    return result


def write_token_pack(directory: Path, cases: Sequence[TokenCase]) -> list[str]:
    """Write `golden/golden.json` and its tensors below `directory`; the names that were written.

    Two outputs are expected of each case, `tokens` int32[1, 32] and `logprobs`
    float32[1, vocabulary], the natural logarithms of the probabilities of the first of them.

    The limit of `tokens` is the least share of equal tokens up to the first that differs, over all
    cases together: one half against the artifact on the host; against the float model what the
    artifact itself reached, less a half. The limit of `kld` is the most that
    KL(expected || given) may be in any case, in nats: 5e-3 against the artifact on the host;
    against the float model the root of that plus the root of the largest that the artifact itself
    reached, squared: small divergences are squares of a distance.

    Raises:
        ExportFailed: Logits that are NaN or infinite: nothing can be held against them.
    """
    for case in cases:
        _require_finite(case)
    files, limits = GoldenFiles(directory), _limits(cases)
    entries = [
        {
            "id": case.name,
            "inputs": [
                files.describe(f"case{index}.0", "input_ids", np.array([case.prompt], np.int64))
            ],
            "expect": _expectations(files, f"case{index}", case, limits),
        }
        for index, case in enumerate(cases)
    ]
    text = json.dumps({"schema": SCHEMA, "cases": entries}, indent=1, allow_nan=False)
    (directory / DIRECTORY / PACK_NAME).write_text(text + "\n", encoding="utf-8")
    return [f"{DIRECTORY}/{PACK_NAME}", *(f"{DIRECTORY}/{name}" for name in files.names)]


def _limits(cases: Sequence[TokenCase]) -> dict[str, tuple[float, float]]:
    """By what is expected: least share of equal tokens, most divergence."""
    reached = float(np.mean([case.agreed for case in cases])) if cases else 0.0
    apart = max((case.divergence for case in cases), default=0.0)
    return {
        "artifact-on-host": (_SAME, _OWN_DIVERGENCE),
        "float-model": (
            max(0.0, reached - (1 - _SAME)),
            (math.sqrt(_OWN_DIVERGENCE) + math.sqrt(apart)) ** 2,
        ),
    }


def _expectations(
    files: GoldenFiles, stem: str, case: TokenCase, limits: Mapping[str, tuple[float, float]]
) -> list[dict[str, object]]:
    expect = []
    for kind, tokens, logits in (
        ("artifact-on-host", case.artifact, case.artifact_logits),
        ("float-model", case.reference, case.reference_logits),
    ):
        least, most = limits[kind]
        for name, file, values, compare in (
            (TOKENS, kind, np.array([tokens], np.int32), {"kind": "tokens", "limit": least}),
            (
                LOGPROBS,
                f"{kind}.{LOGPROBS}",
                log_probabilities(logits)[np.newaxis],
                {"kind": "kld", "limit": most},
            ),
        ):
            described = files.describe(f"{stem}.{file}", name, values)
            del described["sha256"]
            expect.append({**described, "of": kind, "compare": compare})
    return expect


def _require_finite(case: TokenCase) -> None:
    for side, logits in (
        ("artifact", case.artifact_logits),
        ("float model", case.reference_logits),
    ):
        bad = logits.size - int(np.isfinite(logits).sum())
        if bad:
            problem = Problem(
                where=f"golden case {case.name}",
                what=f"logits of the {side} are NaN or infinite",
                expected="finite numbers",
                found=f"{bad} of {logits.size} values",
                remedy="check the weights, or choose a precision with more bits",
            )
            raise ExportFailed(problem)
