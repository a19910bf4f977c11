"""Opset: a Graph in the operators of an older or a newer ONNX, with the same values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import onnx

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.half_operators import captured_names
from edgeship.exporters.tensorrt.opset_rules import RULES, SAME
from edgeship.exporters.tensorrt.opset_site import Site, Unfit
from edgeship.exporters.tensorrt.wiring import Wiring
from edgeship.source.graph import module_of_node

_CHANGED_LATER: Final = frozenset({"DFT", "GridSample", "GroupNormalization"})
"""Mean something else, or say it otherwise, in an opset after 18 (onnx docs/Changelog.md, versions
20 and 21); the other operators were given more types and options."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A model at another opset.

    Attributes:
        proto: The model.
        origins: By the name of a node that was added, that of the node it was made from.
    """

    proto: onnx.ModelProto
    origins: Mapping[str, str]


def at_opset(proto: onnx.ModelProto, opset: int) -> Converted:
    """Bring a Graph to `opset`, 13 or newer, each operator by a rule of its own.

    Nothing else changes: names of tensors and nodes stay, and ONNX Runtime computes the same bits.

    Args:
        proto: A model with static shapes and the operators of ai.onnx alone; not modified.
        opset: Version of the default domain.

    Raises:
        ExportFailed: An operator has no older form; with each of them.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    converter = _Converter(Wiring(proto), opset, has=_version(proto))
    nodes = [made for node in graph.node for made in converter.convert(node)]
    if converter.problems:
        raise ExportFailed(*converter.problems)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(converter.constants)
    _drop_unread_constants(graph)
    del result.opset_import[:]
    result.opset_import.append(onnx.helper.make_opsetid("", opset))
    result.ir_version = ir_version_of(result)
    return Converted(proto=result, origins=converter.origins)


def ir_version_of(proto: onnx.ModelProto) -> int:
    """The oldest IR version that the model's opset allows (onnx docs/Versioning.md)."""
    return int(onnx.helper.find_min_ir_version_for(list(proto.opset_import)))


def _drop_unread_constants(graph: onnx.GraphProto) -> None:
    """What became an attribute is no initializer any more."""
    read = {name for node in graph.node for name in node.input}
    read |= {value.name for value in graph.output}
    read |= {name for node in graph.node for name in captured_names(node)}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(kept) < len(graph.initializer):
        copied = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copied)


def _version(proto: onnx.ModelProto) -> int:
    return next(int(item.version) for item in proto.opset_import if not item.domain)


class _Converter:
    def __init__(self, wiring: Wiring, opset: int, *, has: int) -> None:
        self._wiring = wiring
        self._opset = opset
        self._has = has
        self._taken = {*wiring.nodes} | {
            name for node in wiring.nodes.values() for name in (*node.input, *node.output)
        }
        self.constants: list[onnx.TensorProto] = []
        self.origins: dict[str, str] = {}
        self.problems: list[Problem] = []

    def convert(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """What stands in place of the node, copied."""
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        if not self._is_changed(node):
            return [copy]
        rule = RULES.get(node.op_type)
        try:
            if self._opset >= self._has or (rule is None and node.op_type not in SAME):
                self._site(copy).refuse(f"of opset {self._since(node, self._has)}")
            made = [copy] if rule is None else list(rule(self._site(copy)))
        except Unfit as unfit:
            self.problems.append(self._problem(node, str(unfit)))
            return []
        for one in made:
            if one.name != node.name:
                self.origins[one.name] = node.name
                one.metadata_props.extend(node.metadata_props)
        return made

    def _is_changed(self, node: onnx.NodeProto) -> bool:
        """Whether the operator was defined anew between the two opsets."""
        if self._opset >= self._has:
            return node.op_type in _CHANGED_LATER and self._since(node, self._opset) > self._has
        return self._since(node, self._has) > self._opset

    def _since(self, node: onnx.NodeProto, opset: int) -> int:
        return int(onnx.defs.get_schema(node.op_type, opset, "").since_version)

    def _site(self, node: onnx.NodeProto) -> Site:
        return Site(
            node=node,
            opset=self._opset,
            wiring=self._wiring,
            constants=self.constants,
            taken=self._taken,
        )

    def _problem(self, node: onnx.NodeProto, found: str) -> Problem:
        module = module_of_node(node)
        return Problem(
            where=f"graph: {node.name}" + (f" of {module}" if module else ""),
            what=f"the operator has no form in opset {self._opset}",
            expected=f"what opset {self._opset} of ONNX has",
            found=found,
            remedy="replace the operation in the module, or choose an OS image with a newer"
            " TensorRT",
        )
