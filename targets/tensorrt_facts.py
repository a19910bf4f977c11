"""TensorRT facts: what a board's TensorRT takes, by its version and its GPU.

The table is `tensorrt/versions.toml`. A row whose basis is "derived" was not read at that version;
`TensorRtFacts.notes` says what it rests on, to be shown with whatever follows from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.targets.target import Target

_TABLE: Final = files("edgeship.targets") / "tensorrt" / "versions.toml"
_LAST_MAJOR: Final = 11
"""The newest that the table knows: nothing is guessed of a 12."""


@dataclass(frozen=True, kw_only=True)
class TensorRtFacts:
    """What one TensorRT on one GPU takes.

    Attributes:
        version: As the target's OS image has it, like `"10.3.0"`.
        opset: Of the graphs in a kit.
        opset_max: The highest that the parser of this version takes; at least `opset`.
        is_strongly_typed: Tensors have the types that the graph says; otherwise a flag of the
            builder lets it compute float32 graphs in FP16.
        has_int8: Whether the GPU computes in INT8.
        int8_reason: Why it does not; None where it does.
        python: Major and minor version of the board's Python.
        operators: Name of the table in `tensorrt_operators` that is valid here.
        is_derived: Nobody read the parser of this version: `source` says what was read instead.
        source: Where opset and operators come from.
    """

    version: str
    opset: int
    opset_max: int
    is_strongly_typed: bool
    has_int8: bool
    int8_reason: str | None
    python: tuple[int, int]
    operators: str
    is_derived: bool
    source: str

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        return _release(self.version)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to show beside everything that rests on these facts; empty where all was read."""
        if not self.is_derived:
            return ()
        return (f"facts of TensorRT {self.version} are derived from {self.source}",)


@dataclass(frozen=True, kw_only=True)
class _Row:
    first: tuple[int, int]
    opset: int
    opset_max: int
    is_strongly_typed: bool
    operators: str
    python: str
    is_derived: bool
    source: str


def tensorrt_facts(target: Target) -> TensorRtFacts:
    """The facts of the TensorRT in the OS image of `target`, on its GPU.

    Raises:
        ConfigurationError: It has no GPU or no TensorRT, or one that the table does not know.
    """
    version = target.os.tensorrt
    if version is None or target.gpu is None:
        lacking = "GPU" if target.gpu is None else f"TensorRT under os.{target.os.id}"
        remedy = f"choose another target, or add the {lacking.split()[0]} to its row"
        what = f"the target has no {lacking}"
        raise ConfigurationError(Problem(where=f"targets.{target.name}", what=what, remedy=remedy))
    row = _row(version, where=f"targets.{target.name}.os.{target.os.id}.tensorrt")
    reason = _int8_reason(target.gpu.sm, target.gpu.precisions)
    major, minor = _release(target.os.python or row.python)
    return TensorRtFacts(
        version=version,
        opset=row.opset,
        opset_max=row.opset_max,
        is_strongly_typed=row.is_strongly_typed,
        has_int8=reason is None,
        int8_reason=reason,
        python=(major, minor),
        operators=row.operators,
        is_derived=row.is_derived,
        source=row.source,
    )


def _row(version: str, *, where: str) -> _Row:
    release = _release(version)
    found = [row for row in _rows() if row.first <= release]
    if not found or release[0] > _LAST_MAJOR:
        problem = Problem(
            where=where,
            what="nothing is known of this TensorRT",
            expected=f"{'.'.join(map(str, _rows()[0].first))} to {_LAST_MAJOR}.x",
            found=version,
            remedy="choose an OS image with one of these",
        )
        raise ConfigurationError(problem)
    return found[-1]


def _int8_reason(sm: str, precisions: tuple[str, ...]) -> str | None:
    boards = _no_int8().get(sm)
    if boards is not None:
        return f"a GPU of compute capability {sm} ({boards}) has no INT8"
    if "int8" not in precisions:
        return f"gpu.precisions of the target has no int8, only {', '.join(precisions)}"
    return None


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


@cache
def _rows() -> tuple[_Row, ...]:
    return tuple(
        _Row(
            first=_release(row["from"]),
            opset=row["opset"],
            opset_max=row["opset_max"],
            is_strongly_typed=row["strongly_typed"],
            operators=row["operators"],
            python=row["python"],
            is_derived=row["basis"] == "derived",
            source=row["source"],
        )
        for row in tomllib.loads(_TABLE.read_text(encoding="utf-8"))["version"]
    )


@cache
def _no_int8() -> Mapping[str, str]:
    absent: Mapping[str, str] = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["int8"]["absent"]
    return absent
