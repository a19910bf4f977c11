"""Result: how an artifact did against its golden pack on a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np


class Outcome(StrEnum):
    """How a job on a board can end."""

    OK = "ok"
    MISMATCH = "mismatch"
    DAMAGED = "damaged"
    NO_RUNTIME = "no-runtime"
    NO_NUMPY = "no-numpy"
    WRONG_NUMPY = "wrong-numpy"
    REFUSED = "refused"
    ILLEGAL_INSTRUCTION = "illegal-instruction"
    OUT_OF_MEMORY = "out-of-memory"
    KILLED = "killed"
    FAILED = "failed"
    TIMEOUT = "timeout"


_SENTENCES: Final[Mapping[Outcome, str]] = {
    Outcome.OK: "{runtime} gives the expected outputs on this board",
    Outcome.MISMATCH: "{runtime} gives other outputs on this board than were expected",
    Outcome.DAMAGED: "what arrived on the board is not what was built",
    Outcome.NO_RUNTIME: "the board cannot use {runtime}",
    Outcome.NO_NUMPY: "the board's Python has no numpy",
    Outcome.WRONG_NUMPY: "the board's numpy cannot be used",
    Outcome.REFUSED: "{runtime} refuses the file",
    Outcome.ILLEGAL_INSTRUCTION: "the board's CPU lacks an instruction that {runtime} uses",
    Outcome.OUT_OF_MEMORY: "the board's memory does not suffice{peak}",
    Outcome.KILLED: "{runtime} was ended by a signal",
    Outcome.FAILED: "{runtime} fails on this board",
    Outcome.TIMEOUT: "{runtime} was not done in time",
}
_MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One comparison of a golden case.

    Attributes:
        case: Name of the sample; "all" where the limit is of all cases together.
        name: Of the tensor.
        of: What it is held against: "artifact-on-host", "float-model", "preprocessing" (the raw
            bytes, preprocessed on the board by the manifest, against the golden input), or "file"
            (the golden inputs against those that the file takes).
        kind: How: as in the golden pack.
        difference: In the unit of the kind; None where there is none, as of NaN.
        limit: The largest that is allowed.
        is_ok: None where only all cases together are judged.
        message: What cannot be said by a difference.
    """

    case: str
    name: str
    of: str
    kind: str
    difference: float | None
    limit: float
    is_ok: bool | None
    message: str | None

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> CaseResult:
        """From what a board says; raises KeyError and TypeError."""
        difference = event["difference"]
        return cls(
            case=str(event["case"]),
            name=str(event["name"]),
            of=str(event["of"]),
            kind=str(event["kind"]),
            difference=None if difference is None else float(difference),
            limit=float(event["limit"]),
            is_ok=event["is_ok"],
            message=event["message"],
        )


@dataclass(frozen=True, kw_only=True)
class SmokeRun:
    """What a board said of one artifact in one runtime.

    Attributes:
        outcome: How it ended.
        message: Why, in one clause; None for "ok".
        diagnosis: Which usual mistake would explain a mismatch; None where none does, or several.
        runtime: As manifests call it.
        where: `cpu`, `os`, `runtime` (as pip calls it), `version`, as in `Evidence.where`; of these
            what is known.
        cases: Every comparison.
        imported_bytes: Resident size after the runtime was imported; None of a program.
        peak_bytes: The largest with the model, over the golden cases.
        worker_peak_bytes: The largest of the whole process, also of one that died.
        is_peak_reset: Whether the board's kernel let the peak begin after the import; else it may
            be that of the import.
        outputs: Of the sample by name, [N, *shape]; of token chunks "loss" float64[N, 1] (summed
            negative log-likelihood in nats) and "tokens" int64[N, 1]. Empty without a sample.
        sample_message: Why there are no outputs of a sample that was given.
        stderr: The last that was written there.
    """

    outcome: Outcome
    message: str | None
    diagnosis: str | None
    runtime: str
    where: Mapping[str, str]
    cases: tuple[CaseResult, ...]
    imported_bytes: int | None
    peak_bytes: int | None
    worker_peak_bytes: int | None
    is_peak_reset: bool
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    sample_message: str | None = None
    stderr: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the golden pack matched."""
        return self.outcome is Outcome.OK

    @property
    def title(self) -> str:
        """Package and version, as far as they are known."""
        name = self.where.get("runtime", self.runtime)
        return f"{name} {self.where.get('version', '')}".strip()

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        peak = ""
        if self.worker_peak_bytes is not None:
            peak = f" (it ended at {self.worker_peak_bytes / _MIB:.0f} MiB)"
        said = _SENTENCES[self.outcome].format(runtime=self.title, peak=peak)
        parts = [said, *(part for part in (self.message, self.diagnosis) if part is not None)]
        return "; ".join(parts) if self.diagnosis else ": ".join(parts)
