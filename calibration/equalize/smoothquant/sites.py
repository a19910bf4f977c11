"""Sites: activations that linear layers read, each of which gets one vector of scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import torch
from torch import fx

from edgeship.calibration.equalize.program import FloatProgram, module_name
from edgeship.calibration.equalize.rewrite import Use
from edgeship.calibration.equalize.smoothquant.folding import Fold, find_fold
from edgeship.calibration.equalize.smoothquant.products import Product, products, tensor_uses
from edgeship.vocabulary import Format

_ATEN: Final = torch.ops.aten
_MOVERS: Final = frozenset(
    {
        _ATEN.dropout.default,
        _ATEN.expand.default,
        _ATEN.reshape.default,
        _ATEN.to.dtype,
        _ATEN.view.default,
    }
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """One activation and its readers.

    Attributes:
        source: The activation, float32[..., C].
        products: Its readers that become integers; they share the scales, as query, key and value.
        kept: Its readers that stay in float.
        fold: What takes the inverse scales; None where they become a node of their own.
    """

    source: fx.Node
    products: tuple[Product, ...]
    kept: tuple[Product, ...]
    fold: Fold | None

    @property
    def channels(self) -> int:
        """C."""
        return int(self.source.meta["val"].shape[-1])


def find_sites(program: FloatProgram, use: Use) -> Iterator[Site]:
    """All that can be smoothed for what the program becomes, in the order of the graph."""
    readers: dict[fx.Node, list[Product]] = {}
    uses = tensor_uses(program)
    for product in products(program, uses):
        readers.setdefault(product.source, []).append(product)
    can_insert = is_float_between(program, use)
    for source, found in readers.items():
        kept = tuple(item for item in found if _is_kept(module_name(item.node), use))
        integers = tuple(item for item in found if item not in kept)
        if not integers or _is_changed(source):
            continue
        fold = find_fold(program, source, uses) if len(found) == len(source.users) else None
        if fold is not None or can_insert:
            yield Site(source=source, products=integers, kept=kept, fold=fold)


def is_float_between(program: FloatProgram, use: Use) -> bool:
    """Whether what linear layers read is quantized for them alone, and comes to them in float.

    A node with scales helps only there: where its own input is an integer already, the channels
    that the scales shall save are lost before it.
    """
    match use.format:
        case Format.TENSORRT:
            return True
        case Format.ONNX:
            return has_attention(program)
        case _:
            return False


def has_attention(program: FloatProgram) -> bool:
    """Whether a softmax weighs the rows of another activation: such nets keep floats between.

    The same question as the exporters ask of a Graph, asked of a program.
    """
    if program.calls(_ATEN.scaled_dot_product_attention.default):
        return True
    weights = set(program.calls(_ATEN.softmax.int, _ATEN._softmax.default))
    for node in program.graph.nodes:
        if weights.isdisjoint(node.all_input_nodes):
            continue
        if node.target in (_ATEN.matmul.default, _ATEN.bmm.default):
            return True
        if node.target in _MOVERS:
            weights.add(node)
    return False


def _is_kept(module: str, use: Use) -> bool:
    """Whether a glob matches the module, or one that it is in."""
    parts = module.split(".")
    paths = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return any(fnmatchcase(path, match) for path in paths for match in use.kept_modules)


def _is_changed(source: fx.Node) -> bool:
    """Whether a node changes the activation in place: its readers may see different values."""
    return any(
        isinstance(user.target, torch._ops.OpOverload) and user.target._schema.is_mutable
        for user in source.users
    )
