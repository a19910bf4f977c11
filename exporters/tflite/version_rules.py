"""Version rules: which use of an operator needs which version of it.

They restate TensorFlow's `GetBuiltinOperatorVersion` (tensorflow/compiler/mlir/lite/tools/
versioning/op_version.cc) as conditions of which several may hold: the highest version counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeship.exporters.tflite.flatbuffer import TensorT, type_name


@dataclass(frozen=True, kw_only=True)
class Use:
    """One operator with its tensors; an input that is left out is None."""

    inputs: tuple[TensorT | None, ...]
    outputs: tuple[TensorT | None, ...]
    options: Any

    def type(self, index: int) -> str | None:
        """Element type of input `index`."""
        tensor = self.inputs[index] if index < len(self.inputs) else None
        return None if tensor is None else type_name(tensor)

    def rank(self, index: int = 0) -> int:
        """Number of dimensions of input `index`; 0 for a scalar or where it is absent."""
        return len(shape_of(self.inputs[index])) if index < len(self.inputs) else 0

    def output_type(self) -> str | None:
        """Element type of the first output."""
        tensor = self.outputs[0]
        return None if tensor is None else type_name(tensor)


Condition = Callable[[Use], bool]
Rules = tuple[tuple[int, Condition], ...]


def shape_of(tensor: TensorT | None) -> tuple[int, ...]:
    """Its dimensions; empty for a scalar and for None."""
    shape = None if tensor is None else tensor.shape
    return () if shape is None else tuple(int(size) for size in shape)


def scales_of(tensor: TensorT | None) -> tuple[float, ...]:
    """Its scales, one per channel or one in all; empty where it is not quantized."""
    quantization = None if tensor is None else tensor.quantization
    if quantization is None or quantization.scale is None:
        return ()
    return tuple(float(scale) for scale in quantization.scale)


def _is(*types: str, at: int = 0) -> Condition:
    return lambda use: use.type(at) in types


def _any_is(*types: str) -> Condition:
    return lambda use: use.type(0) in types or use.output_type() in types


def _computes(activations: str, weights: str, *, per_channel: bool = False) -> Condition:
    """Activations in and out of one type, weights (input 1) of another."""

    def holds(use: Use) -> bool:
        is_typed = (use.type(0), use.type(1), use.output_type()) == (
            activations,
            weights,
            activations,
        )
        return is_typed and (not per_channel or _is_per_channel(use))

    return holds


def _is_per_channel(use: Use) -> bool:
    """Scales along the axis of the outputs: 3 for DEPTHWISE_CONV_2D, 0 for the others."""
    shape, count = shape_of(use.inputs[1]), len(scales_of(use.inputs[1]))
    is_depthwise = hasattr(use.options, "depthMultiplier")
    return count > 0 and len(shape) > 0 and shape[3 if is_depthwise else 0] == count


def _above(rank: int) -> Condition:
    return lambda use: use.rank() > rank


def _broadcasts_above(rank: int) -> Condition:
    return lambda use: (
        shape_of(use.inputs[0]) != shape_of(use.inputs[1]) and max(use.rank(0), use.rank(1)) > rank
    )


def _option(*names: str) -> Condition:
    return lambda use: any(getattr(use.options, name, 0) for name in names)


def _both(*conditions: Condition) -> Condition:
    return lambda use: all(condition(use) for condition in conditions)


def _not(condition: Condition) -> Condition:
    return lambda use: not condition(use)


def _is_grouped(use: Use) -> bool:
    return use.rank(0) > 3 and shape_of(use.inputs[0])[3] != shape_of(use.inputs[1])[3]


def _is_sparse(use: Use) -> bool:
    weights = use.inputs[1]
    return weights is not None and weights.sparsity is not None


def _is_dilated(use: Use) -> bool:
    return (use.options.dilationWFactor, use.options.dilationHFactor) != (1, 1)


def _has_quantization(*indices: int) -> Condition:
    return lambda use: any(
        tensor is not None and tensor.quantization is not None
        for tensor in (use.inputs[index] for index in indices)
    )


def _scales_up(use: Use) -> bool:
    scales = [scales_of(tensor) for tensor in (*use.inputs[:2], use.outputs[0])]
    return all(scales) and scales[0][0] * scales[1][0] / scales[2][0] >= 1


def _has_channels(side: str) -> Condition:
    """Several scales on the first input or output."""
    return lambda use: len(scales_of(getattr(use, side)[0])) > 1


def _by_type(at: int = 0, /, **versions: int) -> Rules:
    return tuple((version, _is(name, at=at)) for name, version in versions.items())


_BYTES: Final = _by_type(INT8=2)
_SHORTS: Final = _by_type(INT8=2, INT16=3)
_WIDE: Final = _by_type(INT8=2, INT16=2)
_LARGEST: Final[Rules] = (*_by_type(INT8=2, INT16=4), (3, _broadcasts_above(4)))
_PADS: Final[Rules] = (*_by_type(INT8=2, INT16=3, BOOL=5), (4, _above(4)))
_BLOCKS: Final[Rules] = (*_by_type(INT8=2, INT16=4), (3, lambda use: use.rank() != 4))
_ARGUMENTS: Final = _by_type(INT8=2, BOOL=3)
_HYBRID: Final = _computes("FLOAT32", "INT8")
_HYBRID_CHANNELS: Final = _computes("FLOAT32", "INT8", per_channel=True)
_INTEGER: Final = _computes("INT8", "INT8")
_NIBBLES: Final = _computes("INT8", "INT4")
_POWER_OF_TWO: Final = _option("potScaleInt16")

RULES: Final[Mapping[str, Rules]] = {
    "ABS": (
        *_by_type(INT8=2, UINT8=2, INT32=5),
        (3, _both(_is("INT16"), _has_quantization(0))),
        (4, _both(_is("INT16"), _not(_has_quantization(0)))),
    ),
    "ADD": (
        *_by_type(INT8=2, INT64=4),
        (3, _both(_is("INT16"), _not(_POWER_OF_TWO))),
        (5, _both(_is("INT16"), _not(_has_quantization(0)))),
    ),
    "ARG_MAX": _ARGUMENTS,
    "ARG_MIN": _ARGUMENTS,
    "AVERAGE_POOL_2D": _SHORTS,
    "BATCH_MATMUL": (*_SHORTS, (4, _both(_HYBRID, _option("asymmetricQuantizeInputs")))),
    "BATCH_TO_SPACE_ND": _BLOCKS,
    "BROADCAST_TO": ((2, lambda _: True), *_by_type(INT8=3, INT16=3)),
    "CAST": (
        (2, _any_is("UINT32")),
        (3, _any_is("INT8")),
        (4, _any_is("UINT16")),
        (5, _any_is("FLOAT16", "FLOAT64")),
        (6, _is("INT4")),
        (7, _any_is("BFLOAT16")),
    ),
    "CEIL": (),
    "CONCATENATION": _by_type(INT8=2, INT16=3, UINT32=4),
    "CONV_2D": (
        (2, _HYBRID),
        (3, _INTEGER),
        (4, _computes("INT16", "INT16")),
        (5, _HYBRID_CHANNELS),
        (6, _is_grouped),
        (7, _NIBBLES),
        (8, _computes("INT16", "INT8")),
    ),
    "COS": (),
    "CUMSUM": (),
    "DEPTHWISE_CONV_2D": (
        (2, _is_dilated),
        (3, _INTEGER),
        (4, _HYBRID),
        (5, _computes("INT16", "INT16")),
        (6, _HYBRID_CHANNELS),
        (7, _NIBBLES),
    ),
    "DEPTH_TO_SPACE": _BYTES,
    "DEQUANTIZE": (
        *_by_type(INT8=2, INT16=3, FLOAT16=3, INT4=6),
        (5, _both(_is("INT8"), _has_channels("inputs"))),
    ),
    "DIV": ((2, _broadcasts_above(4)),),
    "ELU": (),
    "EMBEDDING_LOOKUP": (
        (4, _is("INT4", at=1)),
        (4, lambda use: len(scales_of(use.inputs[1])) > 1),
    ),
    "EQUAL": _by_type(INT8=2, STRING=3, INT16=5),
    "EXP": _WIDE,
    "EXPAND_DIMS": (),
    "FILL": _by_type(1, BOOL=2, STRING=2, INT8=3, INT16=3, FLOAT16=4),
    "FLOOR": (),
    "FLOOR_DIV": _by_type(FLOAT32=2, INT8=3, INT16=3),
    "FLOOR_MOD": _WIDE,
    "FULLY_CONNECTED": (
        (2, _option("weightsFormat")),
        (3, _HYBRID),
        (4, _INTEGER),
        (5, _option("keepNumDims")),
        (6, lambda use: len(use.inputs) == 2),
        (7, _computes("INT16", "INT16")),
        (8, _is_sparse),
        (9, _both(_HYBRID, _option("asymmetricQuantizeInputs"))),
        (10, _NIBBLES),
        (11, _computes("INT16", "INT8")),
        (12, _HYBRID_CHANNELS),
        (13, _computes("INT16", "INT4")),
    ),
    "GATHER": (
        *_by_type(INT8=2, BOOL=3, INT16=4, INT4=7),
        (5, _option("batchDims")),
        (6, _is("INT16", at=1)),
    ),
    "GATHER_ND": (*_by_type(STRING=2, INT16=3, BOOL=5), (4, _is("INT16", at=1))),
    "GELU": _by_type(INT8=2, UINT8=2),
    "GREATER": _BYTES,
    "GREATER_EQUAL": _SHORTS,
    "HARD_SWISH": (),
    "L2_NORMALIZATION": _BYTES,
    "LEAKY_RELU": _by_type(INT16=2),
    "LESS": _SHORTS,
    "LESS_EQUAL": _BYTES,
    "LOG": _WIDE,
    "LOGICAL_AND": (),
    "LOGICAL_NOT": (),
    "LOGICAL_OR": (),
    "LOGISTIC": _SHORTS,
    "LOG_SOFTMAX": _BYTES,
    "MAXIMUM": _LARGEST,
    "MAX_POOL_2D": _SHORTS,
    "MEAN": _SHORTS,
    "MINIMUM": _LARGEST,
    "MIRROR_PAD": _SHORTS,
    "MUL": (
        *_by_type(INT8=2, INT16=4, INT64=5, COMPLEX64=6, UINT32=7),
        (3, _both(_is("INT8", "UINT8"), _scales_up)),
        (7, _both(_is("INT16"), _not(_has_quantization(0, 1)))),
    ),
    "NEG": (),
    "NOT_EQUAL": _by_type(INT8=2, STRING=3, INT16=4),
    "ONE_HOT": (),
    "PACK": _by_type(INT8=2, INT16=3, UINT32=4),
    "PAD": _PADS,
    "PADV2": _PADS,
    "POW": (),
    "PRELU": (),
    "QUANTIZE": (
        (2, lambda use: use.output_type() == "INT16"),
        (3, _has_channels("outputs")),
        (4, _any_is("INT4")),
    ),
    "RANGE": _by_type(INT64=2),
    "REDUCE_ALL": (),
    "REDUCE_ANY": (),
    "REDUCE_MAX": _SHORTS,
    "REDUCE_MIN": _SHORTS,
    "REDUCE_PROD": _WIDE,
    "RELU": _by_type(INT8=2, UINT8=2, INT16=3),
    "RELU6": _SHORTS,
    "RELU_0_TO_1": (),
    "RELU_N1_TO_1": (),
    "RESHAPE": (),
    "RESIZE_BILINEAR": (*_by_type(INT8=2, INT16=4), (3, _option("halfPixelCenters"))),
    "RESIZE_NEAREST_NEIGHBOR": (
        *_by_type(INT8=2, INT16=4),
        (3, _option("halfPixelCenters", "alignCorners")),
    ),
    "REVERSE_V2": _by_type(BOOL=2, INT8=3),
    "ROUND": (),
    "RSQRT": _SHORTS,
    "SCATTER_ND": (),
    "SELECT": (
        *_by_type(INT8=2, UINT32=4),
        (3, lambda use: 5 in (use.rank(0), use.rank(1), use.rank(2))),
    ),
    "SELECT_V2": _by_type(UINT32=2),
    "SHAPE": (),
    "SIGN": _by_type(INT32=2),
    "SIN": (),
    "SLICE": (*_by_type(INT8=2, STRING=3, INT16=4, UINT32=6), (5, _above(4))),
    "SOFTMAX": _SHORTS,
    "SPACE_TO_BATCH_ND": _BLOCKS,
    "SPACE_TO_DEPTH": _BYTES,
    "SPLIT": _by_type(1, INT8=2, INT32=3, INT16=4),
    "SPLIT_V": _BYTES,
    "SQRT": _WIDE,
    "SQUARE": (),
    "SQUARED_DIFFERENCE": _BYTES,
    "SQUEEZE": _by_type(STRING=2),
    "STRIDED_SLICE": (
        *_by_type(INT8=2, BOOL=3, STRING=5, UINT32=7),
        (4, _above(4)),
        (6, _option("ellipsisMask", "newAxisMask")),
        (8, _option("offset")),
    ),
    "SUB": (
        *_by_type(INT8=2, INT64=4),
        (3, _broadcasts_above(4)),
        (5, _both(_is("INT16"), _not(_POWER_OF_TWO))),
    ),
    "SUM": _BYTES,
    "TANH": _SHORTS,
    "TILE": _by_type(STRING=2, INT8=3),
    "TOPK_V2": _SHORTS,
    "TRANSPOSE": (
        *_by_type(INT8=2, BOOL=3, INT16=5, INT4=7),
        (4, _above(4)),
        (6, _above(5)),
    ),
    "TRANSPOSE_CONV": (
        (2, _is("INT8", at=1)),
        (3, lambda use: len(use.inputs) == 4 and use.inputs[3] is not None),
        (4, _option("fusedActivationFunction")),
        (5, lambda use: (use.type(0), use.type(1)) == ("INT16", "INT8")),
    ),
    "UNPACK": _by_type(INT8=2, UINT8=2, BOOL=3, INT16=4),
    "WHERE": ((2, _not(_is("BOOL"))),),
    "ZEROS_LIKE": (),
}
"""What each version above 1 is for, by operator; those of the exports that torch modules become.

That int16 activations with int8 weights need CONV_2D 8 and FULLY_CONNECTED 11 is TensorFlow's
reading of a `quantized_bias_type` that is not set (measured)."""
