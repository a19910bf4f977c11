"""The audit stage: what speaks against the representative data, kept for the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgeship.calibration.audit import audit_table
from edgeship.calibration.drift import DRIFT_SAMPLES, audit_drift
from edgeship.calibration.finding import Finding, list_names, notes_from_findings
from edgeship.calibration.samples import SampleSet, select_samples
from edgeship.calibration.table import Table, read_table
from edgeship.contract import TensorSpec
from edgeship.exporters.protocol import Lowered
from edgeship.pipeline.observation import observe_lowered

_NAME: Final = "notes.json"


def audit_samples(
    lowered: Lowered,
    statistics: Path,
    inputs: Sequence[TensorSpec],
    samples: SampleSet,
    evaluation: SampleSet | None,
    skipped: Sequence[str],
    directory: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Table x both kinds of data -> notes, with the names of the samples that were `skipped`.

    `inputs` are the float model's, for which the samples are.

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
        findings += _drift(lowered, table, inputs, evaluation, progress)
    notes = [*notes_from_findings(findings)]
    if skipped:
        notes.append(f"left out, since they cannot be read: {list_names(skipped)}")
    (directory / _NAME).write_text(json.dumps(notes), encoding="utf-8")


def read_audit(directory: Path) -> tuple[str, ...]:
    """What `audit_samples` wrote."""
    return tuple(json.loads((directory / _NAME).read_bytes()))


def _drift(
    lowered: Lowered,
    table: Table,
    inputs: Sequence[TensorSpec],
    evaluation: SampleSet,
    progress: Callable[[int, int], None],
) -> list[Finding]:
    """Of the first evaluation samples in digest order."""
    chosen = select_samples(evaluation.samples, DRIFT_SAMPLES)
    found = observe_lowered(lowered, inputs, evaluation, chosen, progress)
    names = frozenset(spec.name for spec in lowered.contract.inputs)
    return audit_drift(table.statistics, found, names)
