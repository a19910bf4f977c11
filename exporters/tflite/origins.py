"""Origins: which torch module and operator each tensor of a converted file comes from.

The converter names a tensor after the places of the torch nodes that were fused into it, and a
place after the classes of its modules and the last parts of their names, which does not lead back
to one module. Here it is given places that do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from torch import fx

_STACK: Final = "nn_module_stack"
"""Key of torch.export: the modules that a node is inside of, the outermost first."""
_TEXT: Final = re.compile(r"([\w.%~-]*)\|([\w.%~-]*)#")
_NOWHERE: Final = ("torch", 1)
"""File and line of every node: they are paths of this machine, and without one its name is lost."""
_NODES_BEFORE_OUTPUT: Final = 12
"""How far back an output's origins are looked for: past the activation, the bias and the change of
layout that are fused into the operator that gives it."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A torch operator in its module.

    Attributes:
        module: Dotted path; "" is the root.
        operator: Name in torch.ops.aten without its overload: `convolution`.
    """

    module: str
    operator: str

    def __str__(self) -> str:
        """As a place in the converter, whose joints and counters stay apart from it.

        It cuts names at an @, and puts counters behind them.
        """
        return f"{quote(self.module, safe='.')}|{quote(self.operator)}#"


@dataclass(kw_only=True)
class Trace:
    """What was seen of the nodes that the converter lowers.

    Attributes:
        current: Of the node that it is at; None before the first one that has an origin.
        outputs: For each output what it was computed by, the last operator first.
    """

    current: Origin | None = None
    outputs: list[tuple[Origin, ...]] = field(default_factory=list)


def origins_from_text(text: str) -> tuple[Origin, ...]:
    """The origins in a tensor's name or in a message, in their order."""
    return tuple(
        Origin(module=unquote(module), operator=unquote(operator))
        for module, operator in _TEXT.findall(text)
    )


@contextmanager
def traced_origins(wrapper: type, attribute: str) -> Iterator[Trace]:
    """Name the places of nodes by their origins while the block converts.

    Args:
        wrapper: Class of the module that is converted; nodes of its own have no origin.
        attribute: Where it holds the module whose paths are wanted.
    """
    from litert_torch.backend import debuginfo

    trace = Trace()

    def name_place(node: fx.Node) -> str | None:
        if node.op == "output":
            results = node.args[0]
            assert isinstance(results, list | tuple)
            trace.outputs = [_origins_before(result, own, attribute) for result in results]
            return None
        origin = _origin_of(node, own, attribute)
        if origin is None:
            return None
        trace.current = origin
        return str(origin)

    own = f"{wrapper.__module__}.{wrapper.__qualname__}"
    before = debuginfo.build_mlir_debuginfo, debuginfo.build_mlir_file_debuginfo
    debuginfo.build_mlir_debuginfo = name_place
    debuginfo.build_mlir_file_debuginfo = lambda _: (None, None)
    try:
        yield trace
    finally:
        debuginfo.build_mlir_debuginfo, debuginfo.build_mlir_file_debuginfo = before


def _origin_of(node: fx.Node, wrapper: str, attribute: str) -> Origin | None:
    """None for a node of the wrapper's own, and for one that the converter made from nothing."""
    stack = [
        (str(path), kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}")
        for path, kind in (node.meta.get(_STACK) or {}).values()
    ]
    if not stack:
        return None
    module = stack[-1][0]
    if stack[0][1] == wrapper:  # a program's nodes keep the stack of their own export instead
        if len(stack) == 1:
            return None
        module = module.removeprefix(attribute).removeprefix(".")
    name = getattr(node.target, "__name__", str(node.target))
    return Origin(module=module, operator=name.partition(".")[0])


def _origins_before(result: object, wrapper: str, attribute: str) -> tuple[Origin, ...]:
    """Of the nodes that lead to `result`, itself included, nearest first."""
    from torch import fx

    queue = [result] if isinstance(result, fx.Node) else []
    for node in queue:
        if len(queue) >= _NODES_BEFORE_OUTPUT:
            break
        queue += [source for source in node.all_input_nodes if source not in queue]
    found = [_origin_of(node, wrapper, attribute) for node in queue]
    return tuple(origin for origin in found if origin is not None)
