"""Program text: the graph of a `.pt2` file as JSON, of which torch turns some into Python.

Source: torch 2.13, torch/_export/serde/serialize.py and torch/fx/graph.py. Names of nodes are
written into generated source, which is executed (`Graph.python_code`); `expr_str` and the keys of
`range_constraints` go through `sympy.sympify`, which evaluates them; targets are looked up from
`torch`, `operator` and `math` attribute by attribute (`deserialize_operator`); the context of a
`TreeSpec` may name a module to import (`enum_object_hook`). So each is held against what ordinary
programs have.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from edgeship.errors import Problem
from edgeship.source.tensor_name import shown_name

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PATH: Final = re.compile(r"[A-Za-z0-9_.@-]*", re.ASCII)
"""Dotted: `layers.0.weight`; calls of one module more than once end in `@1`."""
_NAMES: Final = frozenset({"name", "as_name"})
_PATHS: Final = frozenset({"fqn", "parameter_name", "buffer_name", "tensor_constant_name"})
_VALUES: Final = frozenset(
    {"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"}
)
_TREES: Final = frozenset({"in_spec", "out_spec"})
_OPERATOR: Final = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!from_file\b|save\b)[A-Za-z_]\w*\.\w+"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop)"
    r"|torch\.sym_[a-z]+|_operator\.[a-z_]+|math\.[a-z]+",
    re.ASCII,
)
"""`aten.from_file` maps any file, and `aten.save` writes one."""
_OBJECTS: Final = frozenset({"as_custom_obj", "custom_obj", "class_fqn", "as_operator"})
_CONTAINER: Final = re.compile(r"(?!collections\.(?!OrderedDict$))[A-Za-z_][\w.]*", re.ASCII)
"""Of `collections`, a defaultdict would import a module, and a namedtuple look for its class."""
_FUNCTIONS: Final = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Max", "Min", "Mod", "Eq", "Ne"),
        *("Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "FloorDiv", "ModularIndexing", "Where"),
        *("PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "IntTrueDiv", "ToFloat"),
        *("FloatTrueDiv", "TruncToInt", "TruncToFloat", "RoundToInt"),
    }
)
"""Of sympy and torch.utils._sympy.functions, those that cannot grow: no powers, no shifts."""
_ATOMS: Final = re.compile(r"[a-z]{1,3}\d+|int_oo|oo|True|False|true|false", re.ASCII)
_NODES: Final = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp),
    *(ast.UnaryOp, ast.USub, ast.UAdd, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    *(ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq),
)
_ODD_GUARD: Final = re.compile(r"__|\b(eval|exec|compile|open|getattr|globals|import|os|sys)\b")
_EXPRESSION_LIMIT: Final = 1000
_DIGITS_LIMIT: Final = 20
"""Characters and digits, a choice: dimensions have a handful."""
_SHOWN: Final = 5


def text_problems(value: object, *, where: str) -> Iterator[Problem]:
    """One problem for all that is strange in the text of a program; none of an ordinary one.

    Raises:
        RecursionError: It is nested a thousand deep.
    """
    strange = list(dict.fromkeys(_strange(value, "")))
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        yield Problem(
            where=where,
            what="the program holds text that torch would run as code; nothing of it ran",
            expected="names, operators of aten, and plain dimensions",
            found="; ".join(strange[:_SHOWN]) + more,
            remedy="export the module again on a machine that you trust, with torch.export.save",
        )


def _strange(value: object, key: str) -> Iterator[str]:
    """What is strange below `value`, which stands under `key`, as `key: text`."""
    if isinstance(value, Mapping):
        if key == "range_constraints":
            yield from (f"{key}: {shown_name(name)}" for name in value if not is_dimension(name))
        for inner, item in value.items():
            if key in _VALUES:
                yield from () if _matches(inner, _NAME) else (f"{key}: {shown_name(inner)}",)
                yield from _strange(item, "")
            else:
                yield from _strange_entry(inner, item)
                yield from _strange(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _strange(item, "")


def _strange_entry(key: str, item: object) -> Iterator[str]:
    is_fine = True
    if key in _NAMES:
        is_fine = item is None or item == "" or _matches(item, _NAME)
    elif key in _PATHS:
        is_fine = _matches(item, _PATH)
    elif key == "target":
        is_fine = _matches(item, _OPERATOR)
    elif key == "expr_str":
        is_fine = isinstance(item, str) and is_dimension(item)
    elif key in _OBJECTS:
        is_fine = False
    elif key == "forward_arg_names" and item is not None:
        is_fine = isinstance(item, list) and all(_matches(name, _NAME) for name in item)
    elif key in _TREES:
        is_fine = isinstance(item, str) and is_plain_tree(item)
    elif key == "guards_code":
        is_fine = isinstance(item, list) and not _ODD_GUARD.search(" ".join(map(str, item)))
    elif key == "custom_obj_values":
        is_fine = not item
    if not is_fine:
        yield f"{key}: {shown_name(str(item))}"


def is_dimension(text: str) -> bool:
    """Whether sympy would find nothing in it but symbols, numbers and arithmetic of a few kinds."""
    if len(text) > _EXPRESSION_LIMIT:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return all(_is_plain_node(node, is_called=id(node) in called) for node in ast.walk(tree))


def is_plain_tree(text: str) -> bool:
    """Whether a serialised TreeSpec has containers with texts or numbers as keys, and no more."""
    protocol = json.loads(text)
    if not isinstance(protocol, list) or len(protocol) != 2 or protocol[0] != 1:
        return False
    rest = [protocol[1]]
    while rest:
        spec = rest.pop()
        if not isinstance(spec, dict):
            return False
        if spec.get("type") is not None and not _matches(spec["type"], _CONTAINER):
            return False
        context = spec.get("context")
        keys = json.loads(context) if isinstance(context, str) else None
        is_plain = keys is None or (
            isinstance(keys, list) and all(isinstance(one, str | int) for one in keys)
        )
        if not is_plain or not isinstance(spec.get("children_spec"), list):
            return False
        rest += spec["children_spec"]
    return True


def _is_plain_node(node: ast.AST, *, is_called: bool) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS if is_called else _ATOMS.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _NAME.fullmatch(node.value) is not None  # a symbol's name
        if isinstance(node.value, int):
            return abs(node.value) < 10**_DIGITS_LIMIT
        return isinstance(node.value, float)
    return isinstance(node, _NODES)


def _matches(item: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(item, str) and pattern.fullmatch(item) is not None
