"""ai-edge-quantizer, quiet, with errors that name an operator, and with nothing stored twice.

Its parts are called one by one: the class that joins them first runs the model, prints, and shows
a progress bar (ai-edge-quantizer 0.10.0, quantizer.py).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    OperatorT,
    SubGraphT,
    TensorT,
    is_constant,
    operator_name,
    operators,
    read_model,
    tensor_name,
    type_name,
)

Recipe = Callable[[Any], None]
"""Adds rules to an ai_edge_quantizer.recipe_manager.RecipeManager: the vendor has no types."""
Calibration = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Least and largest value by tensor name; arrays of any shape that broadcasts to the tensor's."""

_SCOPE_LENGTH: Final = 10_000
"""Longer scopes are cut (ai-edge-quantizer 0.10.0, tfl_flatbuffer_utils.get_op_scope)."""
_REFUSED: Final = (ValueError, RuntimeError, KeyError, IndexError, TypeError, AssertionError)


def quantized_model(
    content: bytes, recipe: Recipe, *, precision: str, calibration: Calibration | None = None
) -> ModelT:
    """Apply a recipe to a float file; its outputs keep their names, equal constants are one buffer.

    Args:
        content: A float file whose tensor names are unique.
        recipe: The rules.
        precision: Its name, for errors.
        calibration: Ranges, where a rule is static.

    Raises:
        ExportFailed: The quantizer cannot do it.
    """
    from ai_edge_quantizer import model_modifier, params_generator, recipe_manager
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    source = read_model(content)
    ranges = {name: {"min": ends[0], "max": ends[1]} for name, ends in (calibration or {}).items()}
    try:
        with _quiet():
            manager = recipe_manager.RecipeManager()
            recipe(manager)
            tables = tfl_flatbuffer_utils.read_model(content)
            generator = params_generator.ParamsGenerator(tables)
            parameters = generator.generate_quantization_parameters(manager, ranges, False)
            modifier = model_modifier.ModelModifier(tables)
            changed = modifier.modify_model(parameters, enable_progress_bar=False)
    except _REFUSED as error:
        raise _failed(source, precision, error) from error
    model = read_model(bytes(changed))
    _restore_output_names(model, source)
    _share_buffers(model)
    return model


def keep_in_float(manager: Any, model: ModelT, kept: Collection[str]) -> None:  # noqa: ANN401 - see Recipe
    """Add the rule that operators which write one of `kept` are left alone.

    A scope is matched by `re.search`, so that one name would match every name that it begins: the
    pattern holds whole scopes, from end to end.
    """
    from ai_edge_quantizer import algorithm_manager, qtyping

    scopes = {
        _scope(subgraph, operator)
        for subgraph, operator in operators(model)
        if not {tensor_name(tensor) for tensor in outputs_of(subgraph, operator)}.isdisjoint(kept)
    }
    if scopes:
        manager.add_quantization_config(
            rf"\A(?:{'|'.join(map(re.escape, sorted(scopes)))})\Z",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
        )


def inputs_of(subgraph: SubGraphT, operator: OperatorT) -> list[TensorT]:
    """The tensors that it reads; those that are left out are not in the list."""
    return [subgraph.tensors[index] for index in operator.inputs if index >= 0]


def outputs_of(subgraph: SubGraphT, operator: OperatorT) -> list[TensorT]:
    """The tensors that it writes."""
    return [subgraph.tensors[index] for index in operator.outputs if index >= 0]


def float_values(model: ModelT, tensor: TensorT) -> np.ndarray | None:
    """A float32 constant's values in their shape; None for every other tensor."""
    if type_name(tensor) != "FLOAT32" or not is_constant(model, tensor):
        return None
    shape = () if tensor.shape is None else tuple(tensor.shape)
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.dtype("<f4"))
    return values.reshape(shape)


def channel_peaks(values: np.ndarray, axis: int) -> np.ndarray:
    """Largest magnitude of each entry along `axis`, the other axes of length 1."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    peaks: np.ndarray = np.abs(values).max(axis=others, keepdims=True, initial=0.0)
    return peaks


def _scope(subgraph: SubGraphT, operator: OperatorT) -> str:
    """By what the recipe knows the operator: each output's name and a semicolon."""
    names = [tensor_name(tensor) for tensor in outputs_of(subgraph, operator)]
    return "".join(f"{name};" for name in names if name)[:_SCOPE_LENGTH]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the quantizer's log lines: it logs through the root logger, and sets that one up."""
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers


def _restore_output_names(model: ModelT, source: ModelT) -> None:
    """Where a QUANTIZE was put behind an output, the file's output has the name again."""
    wanted = [tensor_name(source.subgraphs[0].tensors[i]) for i in source.subgraphs[0].outputs]
    subgraph = model.subgraphs[0]
    for index, name in zip(subgraph.outputs, wanted, strict=True):
        output = subgraph.tensors[index]
        if tensor_name(output) != name:
            before = next(item for item in subgraph.tensors if tensor_name(item) == name)
            before.name, output.name = output.name, before.name


def _share_buffers(model: ModelT) -> None:
    """One buffer for all constants of the same bytes, and none that nothing refers to."""
    first: dict[bytes, int] = {b"": 0}
    new: dict[int, int] = {}
    buffers = [model.buffers[0]]  # empty, for tensors without values (schema.fbs, table Model)
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    for holder in (*tensors, *(model.metadata or ())):
        buffer = model.buffers[holder.buffer]
        data = b"" if buffer.data is None else bytes(buffer.data)
        if holder.buffer not in new:
            new[holder.buffer] = first.setdefault(data, len(buffers))
            if new[holder.buffer] == len(buffers):
                buffers.append(buffer)
        holder.buffer = new[holder.buffer]
    model.buffers = buffers


def _failed(model: ModelT, precision: str, error: Exception) -> ExportFailed:
    """Name the tensor that the message names, the longest name first, and its operator."""
    message = str(error)
    named = [
        (tensor_name(tensor), operator_name(model, operator))
        for subgraph, operator in operators(model)
        for tensor in (*outputs_of(subgraph, operator), *inputs_of(subgraph, operator))
        if tensor_name(tensor) and tensor_name(tensor) in message
    ]
    tensor, operator = max(named, key=lambda item: len(item[0]), default=("", ""))
    problem = Problem(
        where=f"tflite {precision}" + (f": {operator} at {tensor}" if named else ""),
        what="ai-edge-quantizer cannot quantize it" if named else "ai-edge-quantizer fails",
        found=f"{type(error).__name__}: {message}"[:300],
        remedy='keep the layer in float: a rule with precision = "fp32"',
    )
    return ExportFailed(problem)
