"""Conversion: a torch module becomes the tables of a float .tflite file, images channel-last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from edgeship.contract import Contract
from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.tflite.contracts import IMAGE_RANK, is_turned
from edgeship.exporters.tflite.flatbuffer import (
    is_constant,
    operator_name,
    operators,
    read_model,
    tensor_name,
)
from edgeship.exporters.tflite.origins import Origin, Trace, origins_from_text, traced_origins
from edgeship.exporters.tflite.silence import import_litert_torch, silent_vendors
from edgeship.source.model import Model, example_inputs, output_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeship.exporters.tflite.flatbuffer import ModelT

_WRAPPED: Final = "module"
_TO_LAST: Final = (0, 2, 3, 1)
_TO_FIRST: Final = (0, 3, 1, 2)
_EXECUTING: Final = "While executing %"
"""torch.fx, after the message of what failed at a node."""
_USER_CODE: Final = "The following call raised this error:"
"""torch.export, before the line of the module that it blames."""


def convert(model: Model) -> ModelT:
    """The module as a file's tables; each activation is named by the texts of its origins.

    Images, and the outputs of rank 4 of a model that takes some, are channel-last in the file;
    64-bit integers are int32. Metadata of the converter's is gone: `min_runtime_version` does not
    hold for what is made from the file later, and with `keep_stablehlo_constant` TensorFlow's
    quantizer leaves every layer in float (measured).

    Raises:
        ExportFailed: The converter refuses the module, or what it writes is no plain graph.
    """
    litert_torch = import_litert_torch()
    wrapper, arguments = _wrap(model.module, model.contract)
    with silent_vendors(), _intact_weights(), traced_origins(type(wrapper), _WRAPPED) as trace:
        try:
            content = litert_torch.convert(wrapper, arguments).model_content()
        except Exception as error:  # the vendor raises many types, its own and those of jax
            raise _failed(error, trace) from error
    tables = read_model(content)
    _require_plain(tables, model.contract)
    for index, origins in zip(_output_indices(tables), trace.outputs, strict=True):
        tables.subgraphs[0].tensors[index].name = "".join(map(str, origins)).encode()
    _remove_metadata(tables)
    return tables


@contextmanager
def _intact_weights() -> Iterator[None]:
    """Keep the converter from replacing infinities in the module's own tensors.

    It clamps them in place, and whatever runs or exports the module later would see 3.4e38.
    """
    from litert_torch.backend import inline_consts

    clamp = inline_consts._clamp_inf_values
    inline_consts._clamp_inf_values = lambda tensor: clamp(tensor.clone())
    try:
        yield
    finally:
        inline_consts._clamp_inf_values = clamp


def _wrap(module: nn.Module, contract: Contract) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module with the file's inputs and outputs, and arguments to trace it with."""
    from torch import fx, is_tensor, nn

    images = [is_turned(spec) for spec in contract.inputs]
    turns_outputs = any(images)

    class ChannelLast(nn.Module):
        """Takes and gives images channel-last, and gives a tuple whatever the module gives."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.training = False  # not eval(), which the module of a program refuses

        def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
            turned = [
                tensor.permute(_TO_FIRST) if is_image else tensor
                for tensor, is_image in zip(tensors, images, strict=True)
            ]
            results = output_tensors(self._run(turned)).values()
            return tuple(
                result.permute(_TO_LAST) if turns_outputs and result.ndim == IMAGE_RANK else result
                for result in results
            )

        def _run(self, tensors: list[Tensor]) -> object:
            if not isinstance(self.module, fx.GraphModule):
                return self.module(*tensors)
            # node by node, so that those of this export know the modules of the first one
            with fx.traceback.preserve_node_meta():
                return fx.Interpreter(self.module).run(*tensors)

    examples = example_inputs(contract.inputs)
    assert all(is_tensor(example) for example in examples)
    arguments = tuple(
        example.permute(_TO_LAST).contiguous() if is_image else example
        for example, is_image in zip(examples, images, strict=True)
    )
    return ChannelLast(), arguments


def _output_indices(tables: ModelT) -> list[int]:
    """Tensors of the outputs in the module's order, which the converter numbers `output_<n>`."""
    (signature,) = tables.signatureDefs
    numbered = {int(item.name.rpartition(b"_")[2]): item.tensorIndex for item in signature.outputs}
    return [numbered[number] for number in sorted(numbered)]


def _require_plain(tables: ModelT, contract: Contract) -> None:
    """One graph without branches and loops, and outputs that are tensors of their own.

    Raises:
        ExportFailed: It has others: no tensor can have the names of two, or of a constant.
    """
    if len(tables.subgraphs) != 1:
        raise ExportFailed(_branches(tables))
    (graph,) = tables.subgraphs
    outputs = _output_indices(tables)
    for spec, index in zip(contract.outputs, outputs, strict=True):
        found = None
        if index in graph.inputs:
            found = "an input as it came in"
        elif is_constant(tables, graph.tensors[index]):
            found = "a constant"
        elif outputs.count(index) > 1:
            found = "the same tensor as another output"
        if found is not None:
            problem = Problem(
                where=f"tflite: output {spec.name!r}",
                what="the output is not computed on its own",
                expected="a tensor that depends on an input",
                found=found,
                remedy="leave it out of what the module returns",
            )
            raise ExportFailed(problem)


def _remove_metadata(tables: ModelT) -> None:
    """Nothing but the graph and its signature stays; buffers that no tensor has go."""
    (graph,) = tables.subgraphs
    tables.metadata, tables.metadataBuffer = [], None
    tables.description = b"edgeship"
    used = sorted({0, *(tensor.buffer for tensor in graph.tensors)})  # 0 stands for no bytes
    places = {old: new for new, old in enumerate(used)}
    tables.buffers = [tables.buffers[old] for old in used]
    for tensor in graph.tensors:
        tensor.buffer = places[tensor.buffer]


def _branches(tables: ModelT) -> Problem:
    """Of a file with more than one graph: which operators call the others."""
    found = []
    for graph, operator in operators(tables):
        options = (operator.builtinOptions, operator.builtinOptions2)
        fields = [name for item in options if item is not None for name in vars(item)]
        if any(name.endswith("SubgraphIndex") for name in fields):
            origins = origins_from_text(tensor_name(graph.tensors[operator.outputs[0]]))
            found.append(_place(origins[0]) if origins else operator_name(tables, operator))
    return Problem(
        where="tflite",
        what="the model needs operators that call other graphs",
        expected="one graph without branches, loops and sorting",
        found=", ".join(dict.fromkeys(found)) or f"{len(tables.subgraphs)} graphs",
        remedy="leave that step to the application",
    )


def _failed(error: Exception, trace: Trace) -> ExportFailed:
    """What the converter says, and the operator and module that it was at."""
    message = str(error)
    named = origins_from_text(message)
    origin = named[0] if named else trace.current if _EXECUTING in message else None
    remedy = "replace the operator, or leave that step to the application"
    if origin is not None:
        what = f"litert-torch cannot convert {_place(origin)}"
    elif trace.current is not None:
        what = "litert-torch cannot convert the module"
    else:
        what = "torch.export cannot trace the module"
        remedy = "change the module so that torch.export can trace it: no data-dependent branches"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    found = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
    problem = Problem(where="tflite", what=what, found=found + _user_code(message), remedy=remedy)
    return ExportFailed(problem)


def _place(origin: Origin) -> str:
    """`aten.sort in module 'head'`."""
    module = f"module {origin.module!r}" if origin.module else "the outermost module"
    return f"aten.{origin.operator} in {module}"


def _user_code(message: str) -> str:
    """The line of the module that torch.export blames, where it says so."""
    _, _, tail = message.partition(_USER_CODE)
    lines = [line.strip() for line in tail.splitlines() if line.strip()][:2]
    return f" at {' '.join(lines)}" if len(lines) == 2 else ""
