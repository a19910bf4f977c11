"""A `tensorrt` made from a dump of signatures: takes what the real one declares, and nothing else.

What it gives back has the declared type and no meaning, unless `answers` says it:
{"Class.member": value, or a function of self and the arguments}; "Class.member=" is told what is
written to a property.
"""

# ruff: noqa: ANN401, EM102 - it stands in for a module without types
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

Answers = Mapping[str, Any]
Call = tuple[str, tuple[Any, ...]]

_ENGINE = b"an engine that no one built"
_INTEGERS = {"int", "typing.SupportsInt"}
_BUFFERS = {"buffer", "typing_extensions.Buffer"}
_ALIASES = {"IParserError": "ParserError"}


class Member:
    """Of an enum; pybind11 turns no int into one."""

    def __init__(self, enum: str, name: str, value: int) -> None:
        self.enum = enum
        self.name = name
        self.value = value

    def __int__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and (self.enum, self.value) == (other.enum, other.value)

    def __hash__(self) -> int:
        return hash((self.enum, self.value))


def make_module(
    snapshot: Mapping[str, Any], answers: Answers | None = None, *, version: str | None = None
) -> ModuleType:
    """The module; what was called is in its list `calls`."""
    made = ModuleType("tensorrt")
    module: Any = made
    module.__version__ = version or snapshot["version"]
    module.calls = []
    maker = _Maker(module, snapshot["classes"], answers or {})
    for name in snapshot["classes"]:
        setattr(module, name, maker.made(name))
    return made


class _Maker:
    def __init__(self, module: Any, classes: Mapping[str, Any], answers: Answers) -> None:
        self._module = module
        self._classes = classes
        self._answers = answers
        self._made: dict[str, type] = {}

    def made(self, name: str) -> type:
        if name not in self._made:
            self._made[name] = self._make(name, self._classes[name])
        return self._made[name]

    def _make(self, name: str, described: Mapping[str, Any]) -> type:
        if "enum" in described:
            members = {key: Member(name, key, value) for key, value in described["enum"].items()}
            return type(name, (), dict(members))
        known = [base for base in described["bases"] if base in self._classes]
        bases = tuple(self.made(base) for base in known) or (
            (bytes,) if name == "IHostMemory" else ()
        )
        body: dict[str, Any] = {"__setattr__": _set_known}
        for inner, one in described.get("nested", {}).items():
            body[inner] = self._make(inner, one)
        for alias, target in described.get("other", {}).items():
            if target in body:
                body[alias] = getattr(body[target], alias)
        for key, one in described.get("properties", {}).items():
            body[key] = self._property(name, key, one)
        for key, signatures in described.get("methods", {}).items():
            if key not in ("__init__", "__del__"):
                body[key] = self._method(name, key, signatures)
        body["__init__"] = self._method(name, "__init__", described["methods"].get("__init__", []))
        return type(name, bases, body)

    def _method(self, owner: str, name: str, signatures: list[str]) -> Callable[..., Any]:
        parsed = [_parsed(signature) for signature in signatures]

        def call(this: Any, *given: Any, **named: Any) -> Any:
            if not parsed:
                raise TypeError(f"{owner}: No constructor defined!")
            for parameters, returned in parsed:
                arguments = self._bound(parameters, given, named)
                if arguments is not None:
                    self._module.calls.append((f"{owner}.{name}", arguments))
                    return self._answer(f"{owner}.{name}", returned, this, arguments)
            raise TypeError(f"{owner}.{name}(): incompatible function arguments: {given} {named}")

        return call

    def _bound(
        self,
        parameters: list[tuple[str, str, bool]],
        given: tuple[Any, ...],
        named: dict[str, Any],
    ) -> tuple[Any, ...] | None:
        """Arguments in order, where they fit."""
        if len(given) > len(parameters) or not set(named) <= {one[0] for one in parameters}:
            return None
        values = list(given)
        for name, kind, is_optional in parameters[len(given) :]:
            if name in named:
                values.append(named[name])
            elif is_optional:
                break
            else:
                return None
            if not self._fits(values[-1], kind):
                return None
        kinds = [kind for _, kind, _ in parameters]
        if all(self._fits(value, kind) for value, kind in zip(values, kinds, strict=False)):
            return tuple(values)
        return None

    def _fits(self, value: Any, kind: str) -> bool:
        if kind in _INTEGERS:
            return isinstance(value, int) and not isinstance(value, bool)
        if kind in _BUFFERS:
            return isinstance(value, bytes | bytearray | memoryview)
        if kind in ("str", "bool", "list", "tuple"):
            return type(value).__name__ == kind
        if re.match(r"List\[|list\[|collections\.abc\.Sequence\[", kind):
            return isinstance(value, list | tuple)
        name = kind.split(".")[-1].split("::")[-1]
        if isinstance(value, Member):
            return value.enum == name
        return name in self._made and isinstance(value, self._made[name])

    def _answer(self, key: str, returned: str, this: Any, arguments: tuple[Any, ...]) -> Any:
        if key in self._answers:
            answer = self._answers[key]
            return answer(this, *arguments) if callable(answer) else answer
        return self._of_type(returned)

    def _of_type(self, kind: str) -> Any:
        plain = {"bool": True, "str": "", "None": None} | dict.fromkeys(_INTEGERS, 0)
        if kind in plain:
            return plain[kind]
        name = kind.split(".")[-1].split("::")[-1]
        name = _ALIASES.get(name, name)
        if name in self._classes and "enum" not in self._classes[name]:
            made = self.made(name)
            return made.__new__(made, _ENGINE) if issubclass(made, bytes) else made.__new__(made)
        if name in self._classes:
            return next(iter(vars(self.made(name)).values()))
        return []

    def _property(self, owner: str, name: str, described: Mapping[str, Any]) -> property:
        key = f"{owner}.{name}"
        kind = described["type"] or "object"

        def get(this: Any) -> Any:
            return self._answer(key, kind, this, ())

        def put(this: Any, value: Any) -> None:
            if not self._fits(value, kind):
                raise TypeError(f"{key}: {value!r} is no {kind}")
            self._module.calls.append((key, (value,)))
            if f"{key}=" in self._answers:
                self._answers[f"{key}="](this, value)

        return property(get, put if described["writable"] else None)


def _set_known(this: object, name: str, value: object) -> None:
    """pybind11's classes take no attribute that is not declared."""
    found = getattr(type(this), name, None)
    if not isinstance(found, property) or found.fset is None:
        raise AttributeError(f"{type(this).__name__!r} object has no attribute {name!r}")
    found.fset(this, value)


def _parsed(signature: str) -> tuple[list[tuple[str, str, bool]], str]:
    """Name, type and whether it has a default, of each parameter but self; type of the result."""
    match = re.match(r"\w+\((.*)\) -> (.+)$", signature)
    assert match is not None, signature
    parts, depth, start = [], 0, 0
    text = match[1] + ","
    for index, character in enumerate(text):
        depth += character in "[(<"
        depth -= character in "])>"
        if character == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    parameters = []
    for part in parts[1:]:
        name, _, kind = part.partition(": ")
        kind, equals, _ = kind.partition(" = ")
        parameters.append((name, kind, bool(equals)))
    return parameters, match[2]
