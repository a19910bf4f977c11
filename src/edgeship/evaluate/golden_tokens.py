"""Golden pack of a language model: prompts, and the tokens that follow them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from edgeship.evaluate.golden import DIRECTORY, PACK_NAME, SCHEMA, GoldenFiles

PROMPTS: Final = 4
_SAME: Final = 0.95
"""Share of tokens that another build of llama.cpp must give too: repacked kernels of ARM and CUDA
round otherwise than those of x86, and one other token changes all after it. A choice."""


@dataclass(frozen=True, kw_only=True)
class TokenCase:
    """A prompt as token ids, special ones included, and both greedy continuations."""

    PROMPT_TOKENS: ClassVar[int] = 32
    TOKENS: ClassVar[int] = 32

    name: str
    prompt: tuple[int, ...]
    artifact: tuple[int, ...]
    reference: tuple[int, ...]

    @property
    def agreed(self) -> float:
        """Share of equal tokens, up to the first that differs."""
        pairs = list(zip(self.artifact, self.reference, strict=True))
        until = next((at for at, (one, other) in enumerate(pairs) if one != other), len(pairs))
        return until / len(pairs)


def write_token_pack(directory: Path, cases: Sequence[TokenCase]) -> list[str]:
    """Write `golden/golden.json` and its tensors below `directory`; the names that were written.

    The limit of `tokens` is the least share of equal tokens up to the first that differs, over all
    cases together: 0.95 against the artifact on the host; against the float model what the
    artifact itself reached, less a twentieth.
    """
    files = GoldenFiles(directory)
    reached = float(np.mean([case.agreed for case in cases])) if cases else 0.0
    entries = []
    for index, case in enumerate(cases):
        ids = np.array([case.prompt], np.int64)
        expect = []
        for kind, tokens, limit in (
            ("artifact-on-host", case.artifact, _SAME),
            ("float-model", case.reference, max(0.0, reached - (1 - _SAME))),
        ):
            values = np.array([tokens], np.int32)
            described = files.describe(f"case{index}.{kind}", "tokens", values)
            del described["sha256"]
            compare = {"kind": "tokens", "limit": limit}
            expect.append({**described, "of": kind, "compare": compare})
        inputs = [files.describe(f"case{index}.0", "input_ids", ids)]
        entries.append({"id": case.name, "inputs": inputs, "expect": expect})
    text = json.dumps({"schema": SCHEMA, "cases": entries}, indent=1, allow_nan=False)
    (directory / DIRECTORY / PACK_NAME).write_text(text + "\n", encoding="utf-8")
    return [f"{DIRECTORY}/{PACK_NAME}", *(f"{DIRECTORY}/{name}" for name in files.names)]
