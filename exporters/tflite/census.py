"""Census: what of a .tflite file is computed in integers, and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    OperatorT,
    SubGraphT,
    TensorT,
    is_constant,
    operator_name,
    operators,
    tensor_name,
    type_name,
)
from edgeship.exporters.tflite.naming import modules_of
from edgeship.exporters.tflite.replacements import replacement_of

_FLOATS: Final = frozenset({"FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16", "COMPLEX64", "COMPLEX128"})
_CONVERSIONS: Final = frozenset({"QUANTIZE", "DEQUANTIZE"})
_BEFORE_QUANTIZE: Final = "_quantized"
"""Ends the name of one side of a QUANTIZE that ai-edge-quantizer 0.10 adds (measured)."""
_BIAS_POSITION: Final = {
    "CONV_2D": 2,
    "DEPTHWISE_CONV_2D": 2,
    "FULLY_CONNECTED": 2,
    "TRANSPOSE_CONV": 3,
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """One operator: its name in the schema, its torch module, and the tensor that it gives.

    `module` is empty for the outermost one. `tensor` has the name that it has in the float file.
    """

    operator: str
    module: str
    tensor: str

    def __str__(self) -> str:
        """`EXP in encoder.act`; by the tensor where the module is not known."""
        return f"{self.operator} {f'in {self.module}' if self.module else f'at {self.tensor}'}"


@dataclass(frozen=True, kw_only=True)
class Census:
    """What a file holds, over all its subgraphs; of tensors only those that something uses.

    Attributes:
        operators: How many of each, by name.
        inputs: Element types of the model's inputs, by tensor name.
        outputs: Likewise of its outputs.
        float_tensors: Names of the tensors in float, constants included.
        in_float: Operators that compute in float, also from integer weights.
        hybrid: Those of them that have int8 weights.
        conversions: QUANTIZE and DEQUANTIZE between float and integers.
        requantizations: QUANTIZE between two integer scales.
        transposes: TRANSPOSE operators.
        int64_biases: Names of biases in 64 bits, as beside INT16 activations.
        int16_activations: Names of activations in 16 bits.
        half_weights: Names of constants in float16.
    """

    operators: Mapping[str, int]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    float_tensors: tuple[str, ...]
    in_float: tuple[Place, ...]
    hybrid: tuple[Place, ...]
    conversions: tuple[Place, ...]
    requantizations: tuple[Place, ...]
    transposes: tuple[Place, ...]
    int64_biases: tuple[str, ...]
    int16_activations: tuple[str, ...]
    half_weights: tuple[str, ...]

    @property
    def is_integer(self) -> bool:
        """No tensor in float, hence no conversion; inputs and outputs are integers too."""
        return not self.float_tensors


def take_census(model: ModelT) -> Census:
    """Count what the model holds; nothing is modified."""
    modules = modules_of(model)
    uses = [_Use(model, subgraph, operator, modules) for subgraph, operator in operators(model)]
    tensors = list(_used_tensors(model))
    main = model.subgraphs[0]
    return Census(
        operators=dict(sorted(Counter(use.name for use in uses).items())),
        inputs=_types(main, main.inputs),
        outputs=_types(main, main.outputs),
        float_tensors=_names(tensor for tensor in tensors if _is_float(tensor)),
        in_float=tuple(use.place for use in uses if use.is_float),
        hybrid=tuple(use.place for use in uses if use.is_float and use.has_byte_weights),
        conversions=tuple(use.place for use in uses if use.is_conversion),
        requantizations=tuple(use.place for use in uses if use.is_requantization),
        transposes=tuple(use.place for use in uses if use.name == "TRANSPOSE"),
        int64_biases=_names(bias for use in uses for bias in use.biases("INT64")),
        int16_activations=_names(
            tensor
            for tensor in tensors
            if type_name(tensor) == "INT16" and not is_constant(model, tensor)
        ),
        half_weights=_names(
            tensor
            for tensor in tensors
            if type_name(tensor) == "FLOAT16" and is_constant(model, tensor)
        ),
    )


def require_integer(census: Census, kept: Collection[str] = ()) -> None:
    """Make sure that nothing is computed in float but what was meant to be.

    Args:
        census: Of the file.
        kept: Output names, in the float file, of the operators that stay in float on purpose.

    Raises:
        ExportFailed: Operators stayed in float, one problem for each kind; or an input or output.
    """
    found: dict[str, list[Place]] = {}
    for place in census.in_float:
        if place.tensor not in kept:
            found.setdefault(place.operator, []).append(place)
    problems = [_in_float_problem(name, places) for name, places in sorted(found.items())]
    if not problems:
        problems = [_in_float_end(name, census) for name in _float_ends(census)]
    if problems:
        raise ExportFailed(*problems)


def place_of(
    model: ModelT, subgraph: SubGraphT, operator: OperatorT, modules: Mapping[str, str]
) -> Place:
    """Where the operator is, by its first output; `modules` as `naming.modules_of` gives them."""
    indices = _items(operator.outputs)
    name = tensor_name(subgraph.tensors[indices[0]]) if len(indices) else ""
    original = name.removesuffix(_BEFORE_QUANTIZE)
    module = modules.get(original, modules.get(name, ""))
    return Place(operator=operator_name(model, operator), module=module, tensor=original)


class _Use:
    """One operator with its tensors."""

    def __init__(
        self,
        model: ModelT,
        subgraph: SubGraphT,
        operator: OperatorT,
        modules: Mapping[str, str],
    ) -> None:
        self.place = place_of(model, subgraph, operator, modules)
        self.name = self.place.operator
        self._slots = [
            subgraph.tensors[index] if index >= 0 else None for index in _items(operator.inputs)
        ]
        self._inputs = [tensor for tensor in self._slots if tensor is not None]
        self._outputs = [subgraph.tensors[index] for index in _items(operator.outputs)]
        self._constants = [tensor for tensor in self._inputs if is_constant(model, tensor)]

    @property
    def is_float(self) -> bool:
        return self._touches_float and self.name not in _CONVERSIONS

    @property
    def is_conversion(self) -> bool:
        return self._touches_float and self.name in _CONVERSIONS

    @property
    def is_requantization(self) -> bool:
        return self.name == "QUANTIZE" and not self._touches_float

    @property
    def has_byte_weights(self) -> bool:
        return any(type_name(tensor) in ("INT8", "INT4") for tensor in self._constants)

    def biases(self, kind: str) -> list[TensorT]:
        position = _BIAS_POSITION.get(self.name)
        if position is None or position >= len(self._slots):
            return []
        bias = self._slots[position]
        return [bias] if bias is not None and type_name(bias) == kind else []

    @property
    def _touches_float(self) -> bool:
        return any(_is_float(tensor) for tensor in (*self._inputs, *self._outputs))


def _items(indices: Sequence[int] | None) -> Sequence[int]:
    return () if indices is None else indices


def _used_tensors(model: ModelT) -> Iterator[TensorT]:
    for subgraph in model.subgraphs:
        used = {*_items(subgraph.inputs), *_items(subgraph.outputs)}
        for operator in subgraph.operators or ():
            used |= {*_items(operator.inputs), *_items(operator.outputs)}
        yield from (subgraph.tensors[index] for index in sorted(used) if index >= 0)


def _is_float(tensor: TensorT) -> bool:
    return type_name(tensor) in _FLOATS


def _names(tensors: Iterator[TensorT]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tensor_name(tensor) for tensor in tensors))


def _types(subgraph: SubGraphT, indices: Sequence[int] | None) -> dict[str, str]:
    tensors = [subgraph.tensors[index] for index in _items(indices)]
    return {tensor_name(tensor): type_name(tensor) for tensor in tensors}


def _in_float_problem(name: str, places: list[Place]) -> Problem:
    modules = sorted({place.module for place in places} - {""})
    matches = " and ".join(f'match = "{module}"' for module in modules[:3]) or 'match = "*"'
    return Problem(
        where=f"tflite int8: {_listed(places)}",
        what=f"{name} has no int8 kernel here, and computes in float32",
        expected="a fully integer file",
        found=f"{len(places)} {name} in float32",
        remedy=f"{replacement_of(name)}; or choose a precision that is not fully integer:"
        f' "dynamic", or a rule with precision = "fp32" and {matches}',
    )


def _listed(places: list[Place]) -> str:
    texts = list(dict.fromkeys(f"module {p.module}" if p.module else p.tensor for p in places))
    more = len(texts) - 5
    return ", ".join(texts[:5]) + (f" and {more} more" if more > 0 else "")


def _float_ends(census: Census) -> list[str]:
    ends = {**census.inputs, **census.outputs}
    return [name for name, kind in ends.items() if kind in _FLOATS]


def _in_float_end(name: str, census: Census) -> Problem:
    side = "input" if name in census.inputs else "output"
    return Problem(
        where=f"tflite int8: {side} {name}",
        what=f"the {side} is in float",
        expected="INT8, or the integers that it had in the float file",
        found={**census.inputs, **census.outputs}[name],
        remedy="report this as a defect of edgeship",
    )
