"""Identities: nodes of a graph in evaluation mode that give what they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from edgeship.calibration.equalize.rotate.operators import operand

if TYPE_CHECKING:
    from torch import fx

    from edgeship.calibration.equalize.program import FloatProgram

aten = torch.ops.aten
_ALWAYS: Final = (aten.alias.default, aten.detach.default)
_CASTS: Final = (
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.other,
    aten.type_as.default,
    aten._to_copy.default,
)
_DROPOUTS: Final = (aten.dropout.default, aten.feature_dropout.default)


def remove_identities(program: FloatProgram) -> None:
    """Let each reader of a dropout, a cast to the same type or the like read its operand.

    So that structure is told by what computes, and a value's readers are those that use it: what
    torch.export asserts of types goes as well, and what nothing reads.
    """
    for node in list(program.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
        elif _is_identity(node):
            source = operand(node)
            assert source is not None  # all of them take one
            node.replace_all_uses_with(source)
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def _is_identity(node: fx.Node) -> bool:
    if node.target in _DROPOUTS:
        return not node.args[2]
    if node.target in _ALWAYS:
        return True
    source = operand(node)
    if node.target not in _CASTS or source is None:
        return False
    given, taken = node.meta.get("val"), source.meta.get("val")
    if not isinstance(given, torch.Tensor) or not isinstance(taken, torch.Tensor):
        return False
    return given.dtype == taken.dtype and given.shape == taken.shape
