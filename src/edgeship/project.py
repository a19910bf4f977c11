"""Project: what `edgeship.toml` says, as frozen dataclasses; `project_file` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.budget import Budget
from edgeship.contract import Preprocess, TensorSpec
from edgeship.vocabulary import Format, Layout, Output, RangeMethod, RewriteName, Task

DEFAULT_PERCENTILE: Final = 99.999
"""Share inside of the range; at 99.99 MiniLM already fell from cosine .94 to .85 (measured)."""
DEFAULT_SAMPLES: Final = 512
TOKEN_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
"""What a Hugging Face encoder may take of a text, in the order of its signature."""


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A callable in a Python file of the project that builds the module."""

    file: Path
    attribute: str


@dataclass(frozen=True, kw_only=True)
class FactorySource:
    """A torch module: a factory and its weights, a file or a Hugging Face directory."""

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
class TextSection:
    """One `[model.inputs.<name>]` that is a text: its tokens are the model's inputs.

    Attributes:
        name: What the text is called in .jsonl samples.
        tokenizer: Directory with a tokenizer.json.
        length: Tokens of each sample: longer texts are cut, shorter ones padded.
    """

    name: str
    tokenizer: Path
    length: int

    def specs(self) -> tuple[TensorSpec, ...]:
        """int64[1, length] for each tensor that the tokenizer's model takes, in its order.

        The names are `model_input_names` of tokenizer_config.json; without it token ids and mask,
        and token types where config.json has more than one.
        """
        names = _read_json(self.tokenizer / "tokenizer_config.json").get("model_input_names")
        if not isinstance(names, list):
            types = _read_json(self.tokenizer / "config.json").get("type_vocab_size")
            has_types = isinstance(types, int) and types > 1
            names = ["input_ids", "attention_mask", *(["token_type_ids"] if has_types else [])]
        ordered = [name for name in TOKEN_INPUTS if name in names]
        shape = (1, self.length)
        return tuple(TensorSpec(name=name, shape=shape, dtype="int64") for name in ordered)


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """`[model]`: what to export.

    `output` picks one of the outputs that a Hugging Face model can give.
    """

    name: str
    source: FactorySource | FileSource
    task: Task | None
    inputs: tuple[InputSection, ...]
    labels: Path | None
    text: TextSection | None = None
    output: Output | None = None

    def input_specs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the float model, in their order."""
        if self.text is not None:
            return self.text.specs()
        return tuple(section.spec() for section in self.inputs)


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
    """How ranges are solved; `percentile`, where that is the method: share inside, (50, 100]."""

    method: RangeMethod = RangeMethod.MIN_MAX
    percentile: float = DEFAULT_PERCENTILE

    def __str__(self) -> str:
        """As it is written in the project file."""
        if self.method is RangeMethod.PERCENTILE:
            return f"{self.method}:{self.percentile:g}"
        return str(self.method)


@dataclass(frozen=True, kw_only=True)
class EqualizePolicy:
    """Which rewrites the float model gets before an integer file is made of it.

    Attributes:
        names: These, each where it applies; None for "auto": those whose measured result is better.
    """

    names: tuple[RewriteName, ...] | None = None

    def __str__(self) -> str:
        """As it is written in the project file, names joined by commas."""
        if self.names is None:
            return "auto"
        return ", ".join(self.names) or "off"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a recipe: modules whose name matches the glob get this precision."""

    match: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class FormatSection:
    """`[targets.<target>.<format>]`; precisions of None means the catalogue's default.

    `is_strict`, `context` and `converter` are GGUF's: see `Recipe`.
    """

    format: Format
    precisions: tuple[str, ...] | None = None
    ranges: RangePolicy = RangePolicy()
    equalize: EqualizePolicy = EqualizePolicy()
    rules: tuple[Rule, ...] = ()
    is_strict: bool = False
    context: int | None = None
    converter: Path | None = None


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


def _read_json(file: Path) -> dict[str, object]:
    """An object in a JSON file; empty if there is none: it only refines a default."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
