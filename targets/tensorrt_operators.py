"""Operators of TensorRT: what its ONNX parser takes, by version.

The tables are `tensorrt/operators.json` and `tensorrt/restrictions.toml`; each says where it was
read, and which versions were derived from others.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final

_TABLES: Final = files("edgeship.targets") / "tensorrt"


@dataclass(frozen=True, kw_only=True)
class Restriction:
    """What the parser asks of an operator; exactly one of the last four is set.

    Attributes:
        operators: That it is asked of.
        constant: Names of inputs that must be known when the engine is built.
        outputs: How many outputs may be used.
        attribute: That `one_of` and `equal` speak of.
        one_of: Values that the attribute may have.
        equal: Value that the attribute, or each element of it, must have.
    """

    operators: frozenset[str]
    constant: tuple[str, ...] = ()
    outputs: int | None = None
    attribute: str | None = None
    one_of: tuple[str, ...] = ()
    equal: int | None = None


@dataclass(frozen=True, kw_only=True)
class OperatorTable:
    """The operators of one version.

    Attributes:
        name: Version of the table, like `"8.5"`.
        source: Where it was read, or what it was derived from.
        is_derived: Nobody read the table of this version.
        data_types: ONNX types that tensors may have, by the names of the ONNX enumeration.
        types: Operator -> types of its data ("FP32", "INT32", ...); empty where none are listed.
        restrictions: That are asked of these operators.
    """

    name: str
    source: str
    is_derived: bool
    data_types: frozenset[str]
    types: Mapping[str, frozenset[str]]
    restrictions: tuple[Restriction, ...] = field(default=())


@cache
def operator_table(name: str) -> OperatorTable:
    """The table that `TensorRtFacts.operators` names.

    Raises:
        KeyError: There is none: `versions.toml` and `operators.json` do not belong together.
    """
    content = json.loads((_TABLES / "operators.json").read_text(encoding="utf-8"))
    derived = content["derived"].get(name)
    read = content["read"][name if derived is None else derived["base"]]
    types = {
        operator: frozenset(kinds.split())
        for kinds, operators in read["operators"].items()
        for operator in operators.split()
    }
    source: str = read["source"]
    if derived is not None:
        types |= dict.fromkeys(derived["with"], frozenset())
        types = {key: value for key, value in types.items() if key not in derived["without"]}
        source = f"{source}; {derived['source']}"
    return OperatorTable(
        name=name,
        source=source,
        is_derived=derived is not None,
        data_types=frozenset(_onnx_name(kind) for kind in read["data_types"].split()),
        types=types,
        restrictions=_restrictions(name),
    )


def _onnx_name(kind: str) -> str:
    return {"FLOAT32": "FLOAT", "FP8": "FLOAT8E4M3FN"}.get(kind, kind)


def _restrictions(name: str) -> tuple[Restriction, ...]:
    text = (_TABLES / "restrictions.toml").read_text(encoding="utf-8")
    return tuple(
        Restriction(
            operators=frozenset(row["operators"]),
            constant=tuple(row.get("constant", ())),
            outputs=row.get("outputs"),
            attribute=row.get("attribute"),
            one_of=tuple(row.get("one_of", ())),
            equal=row.get("equal"),
        )
        for row in tomllib.loads(text)["restriction"]
        if _key(row["from"]) <= _key(name) <= _key(row.get("until", name))
    )


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
