"""Reads `edgeship.toml` into a Project; all problems of the file at once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem, unknown_name
from edgeship.model_table import read_model
from edgeship.project import (
    DEFAULT_SAMPLES,
    CalibrationSection,
    EvaluationSection,
    Project,
)
from edgeship.table_values import existing_path, named_tables
from edgeship.tables import Table, read_toml
from edgeship.target_table import read_target
from edgeship.vocabulary import Metric

_METRICS: Final = (Metric.TOP1, Metric.AGREEMENT, "cosine", Metric.PERPLEXITY)


def read_project(file: Path) -> Project:
    """Read and check a project file; data and vendor packages are not touched.

    Raises:
        ConfigurationError: With every problem of the file: unknown and missing keys, values of
            another kind, units, names outside of their sets, files that do not exist.
    """
    problems: list[Problem] = []
    root = read_toml(file, name=file.name, problems=problems)
    directory = file.absolute().parent
    model = read_model(root, directory)
    calibration = _read_calibration(root, directory)
    evaluation = _read_evaluation(root, directory)
    sections = named_tables(root, "targets", "no target is named")
    targets = {name: read_target(name, table, directory) for name, table in sections}
    root.close()
    if problems or model is None:
        raise ConfigurationError(*problems)
    return Project(
        directory=directory,
        model=model,
        calibration=calibration,
        evaluation=evaluation,
        targets=targets,
    )


def _read_calibration(root: Table, directory: Path) -> CalibrationSection | None:
    table = root.table("calibration")
    if table is None:
        return None
    data = existing_path(table, "data", directory, required=True)
    samples = table.integer("samples")
    table.close()
    if data is None:
        return None
    return CalibrationSection(data=data, samples=samples or DEFAULT_SAMPLES)


def _read_evaluation(root: Table, directory: Path) -> EvaluationSection | None:
    table = root.table("evaluation")
    if table is None:
        return None
    data = existing_path(table, "data", directory, required=True)
    metric = table.text("metric", required=True)
    table.close()
    if metric is not None and metric not in _METRICS:
        table.problems.append(
            unknown_name(kind="metric", name=metric, choices=_METRICS, where=table.where("metric"))
        )
    if data is None or metric is None:
        return None
    return EvaluationSection(data=data, metric=metric)
