"""Importance process: makes an importance file in a process of its own, with its memory forecast.

The float model and its libraries leave memory behind that only the end of a process gives back,
and an export on a small host needs it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgeship.calibration.importance_forecast import (
    ImportanceForecast,
    forecast_importance,
)
from edgeship.errors import (
    ConfigurationError,
    ExportFailed,
    IntegrityRefused,
    Problem,
    RequirementMissing,
)
from edgeship.memory import available_bytes
from edgeship.quantities import text_from_bytes

CHUNK_TOKENS: Final = 512
"""llama-imatrix's own."""
TOKENS: Final = 20_480
"""A choice: 40 sequences."""
_CHILD: Final = "edgeship.calibration.importance_child"
_KINDS: Final = (ConfigurationError, ExportFailed, IntegrityRefused, RequirementMissing)


@dataclass(frozen=True, kw_only=True)
class ImportanceRequest:
    """What the process is told.

    Attributes:
        directory: Of the Hugging Face model.
        destination: The file that it writes.
        texts: Representative ones, in this order.
        dataset: Where they are from.
        chunk_tokens: Of one sequence, special ones included.
        tokens: After which it stops.
        threads: Of torch.
    """

    directory: str
    destination: str
    texts: tuple[str, ...]
    dataset: str
    chunk_tokens: int = CHUNK_TOKENS
    tokens: int = TOKENS
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class ImportanceRun:
    """What the process did.

    Attributes:
        tokens: That were run.
        peak_bytes: Largest resident memory, mapped files included.
        notes: Lines for people.
    """

    tokens: int
    peak_bytes: int
    forecast: ImportanceForecast
    notes: tuple[str, ...]


def importance_in_process(
    directory: Path,
    texts: Sequence[str],
    destination: Path,
    *,
    dataset: str,
    chunk_tokens: int = CHUNK_TOKENS,
    tokens: int = TOKENS,
    threads: int = 1,
    memory_bytes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> ImportanceRun:
    """Write the importance file of a Hugging Face model for these texts.

    Args:
        directory: Of the model.
        texts: Representative ones, in this order.
        destination: Of the file.
        dataset: Where the texts are from, for the file.
        chunk_tokens: Of one sequence, special ones included.
        tokens: After which it stops.
        threads: Of torch; more than one pay only where as many cores are idle.
        memory_bytes: That may be used; None asks the system.
        on_progress: Told (done, all) sequences.

    Raises:
        ConfigurationError: Model, tokenizer or texts cannot be used.
        RequirementMissing: The forecast is more than the memory, or a package is missing.
        ExportFailed: The system ended the process.
    """
    forecast = forecast_importance(directory, chunk_tokens)
    available = available_bytes() if memory_bytes is None else memory_bytes
    if available is not None and forecast.held > available:
        problem = Problem(
            where=str(directory),
            what="the importance matrix needs more memory than there is",
            expected=text_from_bytes(forecast.held),
            found=text_from_bytes(available),
            remedy="free some, or make the matrix on a larger host and name its file",
        )
        raise RequirementMissing(problem)
    request = ImportanceRequest(
        directory=str(directory),
        destination=str(destination),
        texts=tuple(texts),
        dataset=dataset,
        chunk_tokens=chunk_tokens,
        tokens=tokens,
        threads=threads,
    )
    answer = _run(request, on_progress)
    return ImportanceRun(
        tokens=int(answer["tokens"]),
        peak_bytes=int(answer["peak_bytes"]),
        forecast=forecast,
        notes=tuple(answer["notes"]),
    )


def _run(request: ImportanceRequest, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
    """The last line of the process, which is its answer."""
    command = [sys.executable, "-m", _CHILD]
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError), process.stdin:  # it may be dead already
                json.dump(asdict(request), process.stdin)
            answer: dict[str, Any] = {}
            for line in process.stdout:
                answer = json.loads(line)
                if "progress" in answer:
                    on_progress(*answer["progress"])
            status = process.wait()
        finally:
            process.kill()  # harmless at its end
        if status == 0 and "tokens" in answer:
            return answer
        if "problems" in answer:
            kinds = {kind.__name__: kind for kind in _KINDS}
            raise kinds[answer["kind"]](*(Problem(**item) for item in answer["problems"]))
        stderr.seek(0)
        raise _ended(request, status, stderr.read().decode(errors="replace"))


def _ended(request: ImportanceRequest, status: int, stderr: str) -> Exception:
    """A process that was killed, or one with a bug, whose traceback is kept."""
    if status >= 0:
        return RuntimeError(stderr)
    problem = Problem(
        where=request.directory,
        what="the system ended the process that makes the importance matrix",
        found=f"signal {-status}",
        remedy="free memory, or take a smaller chunk_tokens",
    )
    return ExportFailed(problem)
