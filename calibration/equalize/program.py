"""Float program: a model as one graph of ATen operators, whose tensors and nodes can be edited.

`torch.export` gives the graph; edits keep the dotted names of parameters and each node's module, so
that what is exported from a rewritten program still tells where it comes from.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, fx, nn

from edgeship.errors import ExportFailed, Problem
from edgeship.source.model import Model, example_inputs
from edgeship.source.quiet import quiet_torch

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


@dataclass(frozen=True, kw_only=True)
class FloatProgram:
    """A model whose module is a graph: get_attr, placeholder, call_function and output nodes.

    Attributes:
        model: Its module is a `torch.fx.GraphModule` over `torch.ops.aten`, in evaluation mode.
    """

    model: Model

    @property
    def module(self) -> fx.GraphModule:
        """The graph, its parameters and its buffers."""
        module = self.model.module
        assert isinstance(module, fx.GraphModule)
        return module

    @property
    def graph(self) -> fx.Graph:
        """What is edited in place; `canonical` checks it."""
        return self.module.graph

    def calls(self, *targets: object) -> list[fx.Node]:
        """Nodes that call one of these overloads, as `torch.ops.aten.conv2d.default`, in order."""
        return [node for node in self.graph.nodes if node.target in targets]

    def copy(self) -> FloatProgram:
        """One of its own tensors and nodes: the original stays as it is."""
        with quiet_torch():  # torch copies its own trees in a way that it warns of
            module = copy.deepcopy(self.module)
        return replace(self, model=replace(self.model, module=module))

    def tensor(self, node: object) -> Tensor:
        """The parameter or buffer of a get_attr node; edits of it in place are edits of the model.

        Raises:
            TypeError: The node is another one.
        """
        if not is_tensor(node):
            raise TypeError(str(node))
        return _attribute(self.module, str(node.target))

    def set_tensor(self, node: fx.Node, value: Tensor) -> None:
        """Give a get_attr node another value, of any shape."""
        owner, _, name = str(node.target).rpartition(".")
        parameter = nn.Parameter(value.contiguous(), requires_grad=False)
        holder = self.module.get_submodule(owner)
        delattr(holder, name)
        holder.register_parameter(name, parameter)

    def add_tensor(self, name: str, value: Tensor, before: fx.Node) -> fx.Node:
        """A get_attr node for a new parameter of a dotted name, as `layer1.conv.bias`.

        Modules on the way are made where they are absent; a name that is taken gets a number.
        """
        owner, _, leaf = name.rpartition(".")
        holder: nn.Module = self.module
        for part in owner.split(".") if owner else ():
            if part not in dict(holder.named_children()):
                holder.add_module(part, nn.Module())
            holder = holder.get_submodule(part)
        free, count = leaf, 1
        while hasattr(holder, free):
            count += 1
            free = f"{leaf}_{count}"
        holder.register_parameter(free, nn.Parameter(value.contiguous(), requires_grad=False))
        with self.graph.inserting_before(before):
            return self.graph.get_attr(f"{owner}.{free}" if owner else free)

    def insert(
        self, target: object, arguments: tuple[Any, ...], *, before: fx.Node, like: fx.Node
    ) -> fx.Node:
        """A new call before a node, which tells to be of the module that `like` is of."""
        assert callable(target)
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, arguments)
        node.meta = {
            key: like.meta[key] for key in ("nn_module_stack", "stack_trace") if key in like.meta
        }
        return node

    def canonical(self) -> FloatProgram:
        """Exported again: dead nodes and unused tensors are gone, each node has its value's shape.

        Raises:
            ExportFailed: What was edited cannot be exported.
        """
        self.graph.eliminate_dead_code()
        self.graph.lint()
        self.module.delete_all_unused_submodules()
        self.module.recompile()
        return _exported(self.model)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `Model.run`."""
        return self.model.run(inputs)

    def save(self, file: Path) -> None:
        """Write it as a `.pt2` file, which `load_program` reads."""
        with quiet_torch():
            exported = torch.export.export(self.module, example_inputs(self.model.contract.inputs))
            torch.export.save(exported, file)


def is_tensor(node: object) -> TypeGuard[fx.Node]:
    """Whether a node is a parameter or a buffer."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def float_program(model: Model) -> FloatProgram:
    """The program of a model.

    Raises:
        ExportFailed: torch.export refuses the module, or it only runs an `.onnx` file.
    """
    if model.original is not None:
        problem = Problem(
            where=str(model.original),
            what="a model that is given as ONNX cannot be rewritten",
            expected="a torch module, a .pt2 program or a Hugging Face directory",
            remedy='set equalize = "off"',
        )
        raise ExportFailed(problem)
    return _exported(model)


def module_name(node: fx.Node) -> str:
    """Dotted name of the torch module that a node comes from; "" for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [name for name, _ in stack.values()]
    return names[-1] if names else ""


def users(node: fx.Node) -> Iterator[fx.Node]:
    """Who takes a node's value, in the order of the graph."""
    place = {item: index for index, item in enumerate(node.graph.nodes)}
    yield from sorted(node.users, key=place.__getitem__)


def _exported(model: Model) -> FloatProgram:
    with quiet_torch():
        try:
            program = torch.export.export(model.module, example_inputs(model.contract.inputs))
        except Exception as error:  # torch wraps the user's and its own failures in many types
            problem = Problem(
                where="equalize",
                what="torch.export cannot export the module",
                found=f"{type(error).__name__}: {' '.join(str(error).split())}"[:400],
                remedy='change the module so that it can be traced, or set equalize = "off"',
            )
            raise ExportFailed(problem) from error
        module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    module.requires_grad_(requires_grad=False)
    return FloatProgram(model=replace(model, module=module))


def _attribute(module: nn.Module, name: str) -> Tensor:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value
