"""Project: what `edgeship.toml` says, as frozen dataclasses; `project_file` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.budget import Budget
from edgeship.contract import Preprocess, TensorSpec
from edgeship.vocabulary import Format, Layout, RangeMethod, Task

DEFAULT_PERCENTILE: Final = 99.999
"""Share inside of the range; at 99.99 MiniLM already fell from cosine .94 to .85 (measured)."""
DEFAULT_SAMPLES: Final = 512


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A callable in a Python file of the project that builds the module."""

    file: Path
    attribute: str


@dataclass(frozen=True, kw_only=True)
class FactorySource:
    """A torch module: a factory and the file with its weights."""

    factory: Factory
    weights: Path


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """A model that is whole in itself: `program` (.pt2), `hf` (directory) or `onnx`."""

    kind: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class InputSection:
    """One `[model.inputs.<name>]`; `shape` has the batch of 1 first."""

    name: str
    shape: tuple[int, ...]
    layout: Layout | None
    preprocess: Preprocess | None

    def spec(self) -> TensorSpec:
        """The input as it goes into the float model."""
        return TensorSpec(
            name=self.name, shape=self.shape, layout=self.layout, preprocess=self.preprocess
        )


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """`[model]`: what to export."""

    name: str
    source: FactorySource | FileSource
    task: Task | None
    inputs: tuple[InputSection, ...]
    labels: Path | None


@dataclass(frozen=True, kw_only=True)
class CalibrationSection:
    """`[calibration]`: representative data, at most `samples` of it."""

    data: Path
    samples: int


@dataclass(frozen=True, kw_only=True)
class EvaluationSection:
    """`[evaluation]`: other data, with labels where the metric needs them."""

    data: Path
    metric: str


@dataclass(frozen=True, kw_only=True)
class RangePolicy:
    """How ranges are solved; `percentile` is the share of values inside, in (50, 100]."""

    method: RangeMethod = RangeMethod.MIN_MAX
    percentile: float = DEFAULT_PERCENTILE

    def __str__(self) -> str:
        """As it is written in the project file."""
        if self.method is RangeMethod.PERCENTILE:
            return f"{self.method}:{self.percentile:g}"
        return str(self.method)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a recipe: modules whose name matches the glob get this precision."""

    match: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class FormatSection:
    """`[targets.<target>.<format>]`; precisions of None means the catalogue's default."""

    format: Format
    precisions: tuple[str, ...] | None = None
    ranges: RangePolicy = RangePolicy()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TargetSection:
    """`[targets.<name>]`; `file` is a catalogue row of the project's own, `os` a row of its OSs."""

    name: str
    formats: tuple[FormatSection, ...]
    budget: Budget
    file: Path | None = None
    os: str | None = None


@dataclass(frozen=True, kw_only=True)
class Project:
    """A whole `edgeship.toml`; every path in it is absolute."""

    directory: Path
    model: ModelSection
    calibration: CalibrationSection | None
    evaluation: EvaluationSection | None
    targets: Mapping[str, TargetSection]
