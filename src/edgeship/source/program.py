"""Program: the module in a `.pt2` file, and what it was exported to take."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.contract import TensorSpec
from edgeship.errors import ConfigurationError, Problem
from edgeship.source.archive import damaged
from edgeship.source.program_archive import check_program
from edgeship.source.quiet import quiet_torch

if TYPE_CHECKING:
    from torch import fx, nn
    from torch.export import ExportedProgram

_TRAINING: Final = ("train", "training")
"""Arguments of aten's dropouts and norms that say so (native_functions.yaml)."""


def load_program(path: Path, inputs: Sequence[TensorSpec]) -> nn.Module:
    """The module of an exported program, which takes `inputs` by position.

    Raises:
        ConfigurationError: The file is damaged, was exported in training mode, or takes other
            inputs; a dimension that it leaves open may have any size in its range.
        IntegrityRefused: See `check_program`: nothing was loaded.
    """
    check_program(path)
    import torch

    try:
        with quiet_torch(logging.CRITICAL):
            program = torch.export.load(path)
            problems = [*_input_problems(path, program, inputs), *_training_problems(path, program)]
            # without guards: with them, text of the file would be executed
            module = program.module(check_guards=False)
    except Exception as error:  # the vendor raises many types on what it did not write itself
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise damaged(path, found) from error
    if problems:
        raise ConfigurationError(*problems)
    return module


def _input_problems(
    path: Path, program: ExportedProgram, inputs: Sequence[TensorSpec]
) -> Iterator[Problem]:
    """Number, types and sizes of what it takes, against the project's inputs."""
    from torch import Tensor

    taken = {
        node.name: node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    }
    by_keyword = bool(program.call_spec.in_spec.child(1).num_leaves)
    others = [name for name, value in taken.items() if not isinstance(value, Tensor)]
    if by_keyword or others or len(taken) != len(inputs):
        yield Problem(
            where="edgeship.toml: model.inputs",
            what=f"{path.name} takes other inputs",
            expected=f"{len(taken)} by position: {', '.join(taken) or 'none'}"
            if not by_keyword
            else "tensors by position",
            found="inputs by keyword" if by_keyword else ", ".join(spec.name for spec in inputs),
            remedy="name one input for each, or export the program with tensors as its arguments",
        )
        return
    for (name, value), spec in zip(taken.items(), inputs, strict=True):
        assert isinstance(value, Tensor)  # the check above
        dtype = str(value.dtype).removeprefix("torch.")
        sizes = [str(size) for size in value.shape]
        fits = len(sizes) == len(spec.shape) and all(
            _fits(size, wanted, program)
            for size, wanted in zip(value.shape, spec.shape, strict=True)
        )
        if not fits or dtype != spec.dtype:
            yield Problem(
                where=f"edgeship.toml: model.inputs.{spec.name}",
                what=f"{path.name} was exported for another input ({name})",
                expected=f"{dtype}[{', '.join(sizes)}]",
                found=f"{spec.dtype}{list(spec.shape)}",
                remedy="correct the shape, or export the program for it",
            )


def _fits(size: object, wanted: int, program: ExportedProgram) -> bool:
    """Whether a dimension may be `wanted`; an open one has a range."""
    if isinstance(size, int):
        return size == wanted
    symbol = getattr(getattr(size, "node", None), "expr", None)
    limits = program.range_constraints.get(symbol)
    return limits is None or wanted in limits


def _training_problems(path: Path, program: ExportedProgram) -> Iterator[Problem]:
    import torch

    modules = program.graph_module.modules()
    graphs = [module.graph for module in modules if isinstance(module, torch.fx.GraphModule)]
    found = sorted({str(node.target) for graph in graphs for node in graph.nodes if _trains(node)})
    if found:
        yield Problem(
            where=str(path),
            what="the program was exported in training mode",
            expected="dropout and normalisation as in use",
            found=", ".join(found[:5]),
            remedy="call module.eval() before torch.export.export",
        )


def _trains(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return False
    names = [argument.name for argument in schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return any(given.get(name) is True for name in _TRAINING)
