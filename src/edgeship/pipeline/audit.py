"""The audit stage: what speaks against the representative data, kept for the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.calibration.audit import audit_table
from edgeship.calibration.drift import DRIFT_SAMPLES, audit_drift
from edgeship.calibration.finding import Finding, list_names, notes_from_findings
from edgeship.calibration.observe import observe
from edgeship.calibration.samples import SampleSet, select_samples
from edgeship.calibration.table import read_table
from edgeship.exporters.protocol import Lowered
from edgeship.runtimes.protocol import load_runtime

if TYPE_CHECKING:
    import numpy as np

_NAME: Final = "notes.json"


def audit_samples(
    lowered: Lowered,
    statistics: Path,
    samples: SampleSet,
    evaluation: SampleSet | None,
    skipped: Sequence[str],
    directory: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Table x both kinds of data -> notes, with the names of the samples that were `skipped`.

    Raises:
        ConfigurationError: The data is certainly wrong; no artifact may be made of it.
    """
    table = read_table(statistics, observed_sha256=lowered.sha256)
    findings = audit_table(
        table,
        lowered.contract,
        samples.samples,
        evaluation=() if evaluation is None else evaluation.samples,
    )
    notes_from_findings(findings)  # refuses before the evaluation data is run
    if evaluation is not None:
        findings += _drift(lowered, statistics, evaluation, progress)
    notes = [*notes_from_findings(findings)]
    if skipped:
        notes.append(f"left out, since they cannot be read: {list_names(skipped)}")
    (directory / _NAME).write_text(json.dumps(notes), encoding="utf-8")


def read_audit(directory: Path) -> tuple[str, ...]:
    """What `audit_samples` wrote."""
    return tuple(json.loads((directory / _NAME).read_bytes()))


def _drift(
    lowered: Lowered,
    statistics: Path,
    evaluation: SampleSet,
    progress: Callable[[int, int], None],
) -> list[Finding]:
    """Of the first evaluation samples in digest order."""
    chosen = select_samples(evaluation.samples, DRIFT_SAMPLES)

    def feed() -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for done, index in enumerate(chosen):
            yield evaluation.samples[index].name, evaluation.load(index).inputs
            progress(done + 1, len(chosen))

    table = read_table(statistics, observed_sha256=lowered.sha256)
    with load_runtime(lowered.runtime).observe(lowered.file, lowered.observed) as session:
        found = observe(feed(), session.run)
    inputs = frozenset(spec.name for spec in lowered.contract.inputs)
    return audit_drift(table.statistics, found, inputs)
