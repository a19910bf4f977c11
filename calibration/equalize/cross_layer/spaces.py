"""Spaces: channels that layers write and layers read, joined by what keeps a scale of each.

A scale of each channel of a space, multiplied into the layers that write it and divided out of
those that read it, leaves the function as it is. Residual sums join what they add into one space.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import torch
from torch import fx

from edgeship.calibration.equalize.cross_layer.carriers import Place, carried, shape_of
from edgeship.calibration.equalize.cross_layer.layer import Layer, count_uses, layer_of
from edgeship.calibration.equalize.program import is_tensor

if TYPE_CHECKING:
    from edgeship.calibration.equalize.program import FloatProgram

_ATEN: Final = torch.ops.aten
_SUMS: Final = frozenset({_ATEN.add.Tensor, _ATEN.add_.Tensor, _ATEN.sub.Tensor, _ATEN.sub_.Tensor})
_PRODUCTS: Final = frozenset({_ATEN.mul.Tensor, _ATEN.mul_.Tensor})


@dataclass(frozen=True, kw_only=True)
class Space:
    """Channels that can be scaled.

    Attributes:
        writers: Layers whose outputs they are, at least one.
        readers: Layers whose inputs they are, at least one.
        constants: get_attr nodes that are added, and the node of the sum.
        values: Nodes that hold the channels, and where.
        size: Number of channels, at least 2.
    """

    writers: tuple[Layer, ...]
    readers: tuple[Layer, ...]
    constants: tuple[tuple[fx.Node, fx.Node], ...]
    values: tuple[tuple[fx.Node, Place], ...]
    size: int


def find_spaces(program: FloatProgram) -> list[Space]:
    """The spaces of a canonical program, in the order of its graph.

    Everything that a rule does not know ends a space: what touches it is never scaled.
    """
    search = _Search(program)
    for node in program.graph.nodes:
        search.enter(node)
    return list(search.spaces())


@dataclass
class _Search:
    _program: FloatProgram
    _parents: list[int] = field(default_factory=list)
    _fixed: set[int] = field(default_factory=set)
    _places: dict[fx.Node, Place] = field(default_factory=dict)
    _writers: list[tuple[int, Layer]] = field(default_factory=list)
    _readers: list[tuple[int, Layer]] = field(default_factory=list)
    _constants: list[tuple[fx.Node, fx.Node]] = field(default_factory=list)

    def enter(self, node: fx.Node) -> None:
        """Find the node's channels, and join or fix the spaces of what it reads."""
        if node.op in {"placeholder", "get_attr"}:
            return
        place = self._place_of(node) if node.op == "call_function" else None
        if place is not None:
            self._places[node] = place
            return
        for source in node.all_input_nodes:
            self._fix(source)

    def spaces(self) -> Iterator[Space]:
        """Those that can be scaled."""
        fixed = {self._root(space) for space in self._fixed}
        for root in sorted({self._root(space) for space in range(len(self._parents))} - fixed):
            space = self._space(root)
            if space.readers and space.size > 1:
                yield space

    def _space(self, root: int) -> Space:
        values = tuple(
            (node, place) for node, place in self._places.items() if self._is_of(place.space, root)
        )
        node, place = values[0]
        return Space(
            writers=tuple(layer for space, layer in self._writers if self._is_of(space, root)),
            readers=tuple(layer for space, layer in self._readers if self._is_of(space, root)),
            constants=tuple(
                item for item in self._constants if self._is_of(self._places[item[1]].space, root)
            ),
            values=values,
            size=shape_of(node)[place.axis] // place.repeat,
        )

    def _is_of(self, space: int, root: int) -> bool:
        return self._root(space) == root

    def _place_of(self, node: fx.Node) -> Place | None:
        layer = layer_of(node)
        if layer is not None:
            return self._passed_layer(layer)
        if node.target in _SUMS:
            return self._summed(node)
        activations = [source for source in node.all_input_nodes if not is_tensor(source)]
        if node.target in _PRODUCTS and len(node.all_input_nodes) == 2:
            return self._gated(node)
        if len(activations) != 1 or activations[0] is not node.args[0]:
            return None
        known = self._places.get(activations[0])
        return None if known is None else carried(node, known)

    def _passed_layer(self, layer: Layer) -> Place | None:
        """Its outputs are a new space; a weight that two nodes use is scaled for neither."""
        source = layer.source
        assert isinstance(source, fx.Node)
        if count_uses(layer.weight) > 1:
            return None
        known = self._places.get(source)
        if known is not None and _takes(layer, known):
            self._readers.append((known.space, layer))
        else:
            self._fix(source)
        space = self._new()
        self._writers.append((space, layer))
        return Place(space=space, axis=layer.axis)

    def _summed(self, node: fx.Node) -> Place | None:
        """Summands of one shape share their scales; a constant is scaled with the other one."""
        one, other = node.args[:2]
        if isinstance(one, fx.Node) and is_tensor(other):
            return self._shifted(node, one, other)
        if isinstance(other, fx.Node) and is_tensor(one):
            return self._shifted(node, other, one)
        if not (isinstance(one, fx.Node) and isinstance(other, fx.Node)):
            return None
        places = self._places.get(one), self._places.get(other)
        if places[0] is None or places[1] is None or not _are_alike((one, other), places):
            return None
        self._parents[self._root(places[1].space)] = self._root(places[0].space)
        return places[0]

    def _shifted(self, node: fx.Node, value: fx.Node, constant: fx.Node) -> Place | None:
        place = self._places.get(value)
        if place is None or count_uses(constant) > 1 or shape_of(node) != shape_of(value):
            return None
        if not self._program.tensor(constant).is_floating_point():
            return None
        self._constants.append((constant, node))
        return place

    def _gated(self, node: fx.Node) -> Place | None:
        """Of a value and a gate that is broadcast to it, only the value may be scaled."""
        one, other = node.args[:2]
        if not (isinstance(one, fx.Node) and isinstance(other, fx.Node)) or one is other:
            return None
        wide = [item for item in (one, other) if item in self._places]
        wide = [item for item in wide if shape_of(item) == shape_of(node)]
        if len(wide) != 1:
            return None
        self._fix(other if wide[0] is one else one)
        return self._places[wide[0]]

    def _fix(self, node: fx.Node) -> None:
        if node in self._places:
            self._fixed.add(self._places[node].space)

    def _new(self) -> int:
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def _root(self, space: int) -> int:
        while self._parents[space] != space:
            space = self._parents[space]
        return space


def _takes(layer: Layer, place: Place) -> bool:
    """Whether a layer reads channels where they are, and each of them in one group only."""
    assert isinstance(layer.source, fx.Node)
    inputs = shape_of(layer.source)[place.axis] // layer.groups
    return place.axis == layer.axis and inputs % place.repeat == 0


def _are_alike(nodes: tuple[fx.Node, fx.Node], places: tuple[Place | None, Place | None]) -> bool:
    """Whether the channels of two summands are the same entries; other axes may be broadcast."""
    one, other = (shape_of(node) for node in nodes)
    if places[0] is None or places[1] is None or len(one) != len(other):
        return False
    same = replace(places[1], space=places[0].space) == places[0]
    return same and one[places[0].axis] == other[places[0].axis]
