"""Plan: which artifacts a project asks for, validated whole before the first slow step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeship.budget import Budget
from edgeship.errors import ConfigurationError, EdgeshipError, Problem, unknown_name
from edgeship.exporters.protocol import Exporter, Recipe, Request
from edgeship.exporters.registry import EXPORTERS, load_exporter
from edgeship.pipeline.data import data_problems
from edgeship.project import (
    EqualizePolicy,
    FileSource,
    FormatSection,
    Project,
    RangePolicy,
    TargetSection,
)
from edgeship.targets import Target, load_target
from edgeship.vocabulary import Format

_CALIBRATED = frozenset(
    {
        *((format_, "int8") for format_ in Format),
        (Format.ONNX, "fp16"),
        (Format.TENSORRT, "kit"),
    },
)
"""Formats and precisions whose activations need ranges; fp16 does to find what would overflow,
which its values on this host's CPU never show."""

_OFF = EqualizePolicy(names=())


@dataclass(frozen=True, kw_only=True)
class PlannedArtifact:
    """One artifact to be made.

    Attributes:
        target: The catalogue row.
        format: Its exporter's format.
        recipe: Which precision goes where.
        ranges: How ranges are solved, if they are needed.
        equalize: Which rewrites its float model gets; "off" where it has no integers to hold.
        budget: Of the target.
        is_companion: True for an fp32 file that nobody asked for, made to compare int8 with.
    """

    target: Target
    format: Format
    recipe: Recipe
    ranges: RangePolicy
    equalize: EqualizePolicy
    budget: Budget
    is_companion: bool

    @property
    def name(self) -> str:
        """`<target>/<format>-<precision>`."""
        return f"{self.target.name}/{self.format}-{self.recipe.precision}"

    @property
    def is_calibrated(self) -> bool:
        """Whether its activations need ranges."""
        return (self.format, self.recipe.precision) in _CALIBRATED

    @property
    def is_equalized(self) -> bool:
        """Whether rewrites of its float model are tried."""
        return self.equalize != _OFF


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a build will make, in the project file's order."""

    project: Project
    artifacts: tuple[PlannedArtifact, ...]

    def exporter(self, artifact: PlannedArtifact) -> Exporter:
        """The exporter of an artifact."""
        return load_exporter(artifact.format)


def make_plan(project: Project, targets: Sequence[str] = ()) -> Plan:
    """Plan all targets of a project, or those named.

    Raises:
        ConfigurationError: With everything that is wrong with any of them.
    """
    problems = [
        unknown_name(kind="target", name=name, choices=list(project.targets), where="command line")
        for name in targets
        if name not in project.targets
    ]
    artifacts: list[PlannedArtifact] = []
    for section in project.targets.values():
        if targets and section.name not in targets:
            continue
        try:
            target = load_target(section.name, os=section.os, file=section.file)
        except EdgeshipError as error:
            problems += error.problems
            continue
        for format_section in section.formats:
            found = list(_format_problems(target, format_section))
            problems += found
            if not found:
                artifacts += _plan_format(section, format_section, target, project)
    problems += [problem for item in artifacts for problem in _artifact_problems(project, item)]
    problems += data_problems(project)
    if problems:
        raise ConfigurationError(*dict.fromkeys(problems))
    return Plan(project=project, artifacts=tuple(artifacts))


def _plan_format(
    section: TargetSection, chosen: FormatSection, target: Target, project: Project
) -> Iterator[PlannedArtifact]:
    """The precisions that are named; else the catalogue's, with fp32 beside any int8."""
    precisions = chosen.precisions or target.formats[chosen.format].precisions
    companions = [
        "fp32" for precision in precisions if precision == "int8" and "fp32" not in precisions
    ]
    if chosen.precisions is not None:
        companions = []
    for precision in (*precisions, *companions):
        yield PlannedArtifact(
            target=target,
            format=chosen.format,
            recipe=Recipe(
                precision=precision,
                rules=() if precision == "fp32" else chosen.rules,
                is_strict=chosen.is_strict,
                context=chosen.context,
                converter=chosen.converter,
            ),
            ranges=RangePolicy() if precision == "fp16" else chosen.ranges,  # nothing is cut off
            equalize=_equalize(chosen, precision, target, project),
            budget=section.budget,
            is_companion=precision in companions,
        )


def _equalize(
    chosen: FormatSection, precision: str, target: Target, project: Project
) -> EqualizePolicy:
    """Of artifacts with integer activations alone; "auto" leaves a model that is given as ONNX."""
    is_integer = precision == "int8" or (
        precision == "kit" and target.gpu is not None and "int8" in target.gpu.precisions
    )
    is_left = chosen.equalize.names is None and _is_onnx(project)
    return chosen.equalize if is_integer and not is_left else _OFF


def _is_onnx(project: Project) -> bool:
    source = project.model.source
    return isinstance(source, FileSource) and source.kind == "onnx"


def _format_problems(target: Target, section: FormatSection) -> Iterator[Problem]:
    where = f"edgeship.toml: targets.{target.name}.formats"
    facts = target.formats.get(section.format)
    if facts is None or not facts.precisions:
        reason = facts.reason if facts is not None else None
        yield Problem(
            where=where,
            what=f"{target.name} does not take {section.format}",
            expected=", ".join(
                str(name) for name, facts in target.formats.items() if facts.precisions
            ),
            found=reason,
            remedy="choose one of its formats",
        )
    elif section.format not in EXPORTERS:
        yield Problem(
            where=where,
            what=f"{section.format} cannot be made in this version",
            expected=", ".join(EXPORTERS),
            remedy="remove it from the list",
        )


def _artifact_problems(project: Project, item: PlannedArtifact) -> Iterator[Problem]:
    request = Request(model=project.model, target=item.target, recipe=item.recipe)
    yield from load_exporter(item.format).problems(request)
    if item.is_calibrated and project.calibration is None:
        yield Problem(
            where="edgeship.toml: calibration",
            what=f"{item.name} needs representative data",
            remedy="add a table [calibration] with data",
        )
    if item.is_equalized and _is_onnx(project):
        yield Problem(
            where=f"edgeship.toml: targets.{item.target.name}.{item.format}.equalize",
            what="a model that is given as ONNX cannot be rewritten",
            expected="a torch module, a .pt2 program or a Hugging Face directory",
            found=str(item.equalize),
            remedy='write equalize = "off", or name the model that the file was made from',
        )
