"""What an exporter is, and what it takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgeship.artifact import Requirements
from edgeship.contract import Contract
from edgeship.errors import Problem
from edgeship.project import ModelSection, Rule
from edgeship.story import Progress, ignore_progress
from edgeship.targets import Target
from edgeship.vocabulary import Layout, Role

if TYPE_CHECKING:
    import numpy as np

    from edgeship.calibration.importance import Importance
    from edgeship.calibration.ranges import Ranges
    from edgeship.source.model import Model


STAND_IN_NAME: Final = "stand_in.onnx"
"""What `emit` leaves beside the artifact's files, where its tools name a stand-in: the same
arithmetic as a file that a runtime of the host takes. It is no part of the artifact."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which precision goes where: `precision` everywhere, then the rules, a later one wins.

    Attributes:
        precision: Of the whole file.
        rules: Of modules.
        is_strict: GGUF: whether a tensor of another type than the precision's own is an error.
        context: GGUF: tokens that memory is forecast for; None for the model's own.
        converter: GGUF: llama.cpp's script that makes the file in place of this package.
    """

    precision: str
    rules: tuple[Rule, ...] = ()
    is_strict: bool = False
    context: int | None = None
    converter: Path | None = None

    def to_json(self) -> list[dict[str, str]]:
        """The rules, as in the manifest; the first one is the whole model's."""
        whole = Rule(match="*", precision=self.precision)
        return [{"match": rule.match, "precision": rule.precision} for rule in (whole, *self.rules)]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the plan asks an exporter for."""

    model: ModelSection
    target: Target
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is lowered.

    Attributes:
        load: Gives the float model; asked for it at most once, and not at all by a format that
            is made of the checkpoint itself.
        read_probes: Gives a few real inputs to prove a lowered file with; likewise.
        checkpoint: The file or directory with the weights.
        texts: Representative texts, where the input is one.
        converter: As in the recipe.
    """

    load: Callable[[], Model]
    read_probes: Callable[[], Sequence[Mapping[str, np.ndarray]]]
    checkpoint: Path = Path()
    texts: Sequence[str] = ()
    converter: Path | None = None

    @cached_property
    def model(self) -> Model:
        """The float model."""
        return self.load()

    @cached_property
    def probes(self) -> Sequence[Mapping[str, np.ndarray]]:
        """The real inputs."""
        return self.read_probes()


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a file says of itself: the project's name, and the lines of its labels file."""

    name: str = ""
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """The float file of a format, on which tensors are observed.

    Attributes:
        file: The file.
        sha256: Of its bytes; statistics are bound to it.
        contract: Of the float file.
        runtime: Name in `RUNTIMES` of what observes it.
        observed: Names of the tensors whose statistics `emit` may ask for.
        layout: Axis order of images inside of the file.
        notes: Lines for people: what was chosen or put together to load the model.
        card: For formats that say of themselves what they are; the pipeline hands it to `emit`,
            it is no part of the file.
        checkpoint: For formats that are made of the checkpoint; likewise.
    """

    file: Path
    sha256: str
    contract: Contract
    runtime: str
    observed: tuple[str, ...]
    layout: Layout = Layout.NCHW
    notes: tuple[str, ...] = ()
    card: Card = Card()
    checkpoint: Path = Path()

    def to_json(self) -> dict[str, object]:
        """For the stage cache; the file by its name alone."""
        return {
            "file": self.file.name,
            "sha256": self.sha256,
            "contract": self.contract.to_json(),
            "runtime": self.runtime,
            "observed": list(self.observed),
            "layout": str(self.layout),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], directory: Path) -> Lowered:
        """Inverse of `to_json`, for a file in `directory`."""
        return cls(
            file=directory / value["file"],
            sha256=value["sha256"],
            contract=Contract.from_json(value["contract"]),
            runtime=value["runtime"],
            observed=tuple(value["observed"]),
            layout=Layout(value["layout"]),
            notes=tuple(value["notes"]),
        )


@dataclass(frozen=True, kw_only=True)
class Payload:
    """What an exporter wrote: its files by role, and what the manifest must say of them.

    Attributes:
        files: Role by name, in the directory that `emit` was given.
        contract: Of the emitted model.
        requires: What a board must have.
        notes: Lines for people: what stayed in float, what is slower, what was left out.
        output_steps: By output name, what rounding inside may move a float output by: one LSB of
            an output that was quantized, the rounding of float16 arithmetic.
    """

    files: Mapping[str, Role]
    contract: Contract
    requires: Requirements
    notes: tuple[str, ...]
    output_steps: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """For the stage cache."""
        return {
            "files": {name: str(role) for name, role in self.files.items()},
            "contract": self.contract.to_json(),
            "requires": self.requires.to_json(),
            "notes": list(self.notes),
            "output_steps": dict(self.output_steps),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Payload:
        """Inverse of `to_json`."""
        return cls(
            files={name: Role(role) for name, role in value["files"].items()},
            contract=Contract.from_json(value["contract"]),
            requires=Requirements.from_json(value["requires"]),
            notes=tuple(value["notes"]),
            output_steps=value["output_steps"],
        )


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a stage's result depends on beside its inputs.

    Attributes:
        lower_version: Raised when `lower` changes what it writes.
        emit_version: Likewise of `emit`.
        packages: Distributions whose versions shape the files.
        extra: The extra of edgeship that installs them.
        stand_in: Name in `RUNTIMES` of what runs `STAND_IN_NAME` on the host, where the target's
            own runtime is on boards alone; None for formats whose files run here.
    """

    lower_version: int
    emit_version: int
    packages: tuple[str, ...]
    extra: str
    stand_in: str | None = None


class Exporter(Protocol):
    """Makes the files of one format; the module that holds it imports no vendor package."""

    @property
    def tools(self) -> Tools:
        """What its results depend on."""
        ...

    def problems(self, request: Request) -> Iterator[Problem]:
        """Everything that is wrong with the request, before anything slow."""
        ...

    def lower(self, source: Source, directory: Path) -> Lowered:
        """Write the float file into `directory` and prove it against the model.

        Raises:
            ExportFailed: It cannot be written, or computes something else.
        """
        ...

    def emit(
        self,
        lowered: Lowered,
        ranges: Ranges | Importance | None,
        recipe: Recipe,
        target: Target,
        directory: Path,
        *,
        progress: Progress = ignore_progress,
    ) -> Payload:
        """Write the files of one artifact into `directory`; `progress` is told as it grows.

        Raises:
            ExportFailed: They cannot be written.
            ConfigurationError: The recipe does not fit the model.
        """
        ...
