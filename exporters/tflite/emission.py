"""Emission: a lowered file in the precision of a recipe, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.tflite.casts import drop_copies, exact_casts, join_casts
from edgeship.exporters.tflite.census import place_of, require_integer, take_census
from edgeship.exporters.tflite.dynamic import dynamic_model
from edgeship.exporters.tflite.embeddings import gather_embeddings
from edgeship.exporters.tflite.flatbuffer import operators, read_model, write_model
from edgeship.exporters.tflite.half import half_model, half_notes
from edgeship.exporters.tflite.integer import float_operators, integer_model
from edgeship.exporters.tflite.masks import finite_masks
from edgeship.exporters.tflite.naming import modules_of
from edgeship.exporters.tflite.notes import census_notes
from edgeship.exporters.tflite.projection import project_ranges
from edgeship.exporters.tflite.rules import kept_operators
from edgeship.exporters.tflite.versions import set_minimum_runtime, set_versions
from edgeship.targets.target import Runtime

if TYPE_CHECKING:
    from edgeship.calibration.ranges import Ranges
    from edgeship.exporters.protocol import Recipe
    from edgeship.exporters.tflite.flatbuffer import ModelT
    from edgeship.targets.target import RuntimeFact


@dataclass(frozen=True, kw_only=True)
class Emission:
    """A model in its precision; `notes` as in `Payload`."""

    tables: ModelT
    notes: Sequence[str]


def emission(
    content: bytes, ranges: Ranges | None, recipe: Recipe, runtimes: Sequence[RuntimeFact]
) -> Emission:
    """The model as `recipe` asks for it, its operators in the versions that they need.

    Args:
        content: The lowered file.
        ranges: Of its activations, where the precision needs them.
        recipe: One of the exporter's precisions, and its rules.
        runtimes: Of the target.

    Raises:
        ExportFailed: It cannot be made, or an int8 file is not fully integer without a rule that
            says so.
        ConfigurationError: A rule matches no module.
    """
    kept = kept_operators(read_model(content), recipe)
    notes: list[str] = []
    match recipe.precision:
        case "fp16":
            tables = read_model(half_model(content, kept))
            notes += half_notes(content)
        case "int8":
            assert ranges is not None  # the pipeline observes before it emits int8
            tables, notes = _integer_tables(content, ranges, kept)
        case "dynamic":
            is_old = any(fact.name is Runtime.TFLITE_RUNTIME for fact in runtimes)
            tables = read_model(dynamic_model(content, for_old=is_old, kept=kept))
        case _:
            tables = read_model(content)
    unknown = set_versions(tables)
    set_minimum_runtime(tables)
    census = take_census(tables)
    if recipe.precision == "int8":
        require_integer(census, kept)
    notes += census_notes(census, recipe.precision, kept)
    if unknown:
        notes.append(f"versions as the converter wrote them: {', '.join(unknown)}")
    return Emission(tables=tables, notes=notes)


def _integer_tables(
    content: bytes, ranges: Ranges, kept: Sequence[str]
) -> tuple[ModelT, list[str]]:
    """First the rewrites that keep what masks, look-ups and casts compute, then the integers."""
    tables = read_model(content)
    ranges = finite_masks(tables, ranges)
    gather_embeddings(tables)
    ranges, notes = project_ranges(tables, exact_casts(tables, ranges))
    problems = list(_float_problems(tables, ranges, kept))
    if problems:
        raise ExportFailed(*problems)
    made = read_model(integer_model(write_model(tables), ranges, kept))
    join_casts(made)
    drop_copies(made)
    return made, notes


def _float_problems(tables: ModelT, ranges: Ranges, kept: Sequence[str]) -> Iterator[Problem]:
    """What cannot be integer for what its tensors hold."""
    reasons = float_operators(tables, ranges)
    modules = modules_of(tables)
    for subgraph, operator in operators(tables):
        place = place_of(tables, subgraph, operator, modules)
        if place.tensor in reasons and place.tensor not in kept:
            yield Problem(
                where=f"tflite int8: {place}",
                what=f"{place.operator} cannot be int8",
                expected="a fully integer file",
                found=reasons[place.tensor],
                remedy="give the mask a finite value as -16, or the tensor finite ones; "
                'or choose a precision that is not fully integer: "dynamic"',
            )
