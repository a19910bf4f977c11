"""Version table: the first releases of TensorFlow and LiteRT with each version of an operator.

TensorFlow's are those of its `FindMinimumRuntimeVersionForOp` (tensorflow/compiler/mlir/lite/tools/
versioning/runtime_version.cc), which tells the same of 2.14 as the resolver of tflite-runtime
2.14.0 (measured, all operators of the table). "2.21" says no more than that the interpreter of
TensorFlow 2.21 has the version (measured).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_RELEASES: Final[Mapping[str, str]] = {
    "ABS": "1.13 2.4 2.5 2.6 2.12",
    "ADD": "1.5 1.14 2.4 2.6 2.13",
    "ARG_MAX": "1.9 1.14 2.9",
    "ARG_MIN": "1.9 1.14 2.9",
    "AVERAGE_POOL_2D": "1.5 1.14 2.3",
    "BATCH_MATMUL": "2.3 2.3 2.4 2.5",
    "BATCH_TO_SPACE_ND": "1.6 1.14 2.3 2.12",
    "BROADCAST_TO": "- 2.5 2.5",
    "CAST": "1.5 2.7 2.8 2.9 2.12 2.15 2.17",
    "CEIL": "1.14",
    "CONCATENATION": "1.5 1.14 2.3 2.14",
    "CONV_2D": "1.5 1.14 1.14 2.3 2.4 2.9 2.11 2.15",
    "COS": "1.14",
    "CUMSUM": "2.4",
    "DEPTHWISE_CONV_2D": "1.5 1.12 1.14 2.2 2.3 2.3 2.11",
    "DEPTH_TO_SPACE": "2.1 2.5",
    "DEQUANTIZE": "1.13.1 1.14 1.15 2.2 2.7 2.18",
    "DIV": "1.6 2.3",
    "ELU": "1.14",
    "EMBEDDING_LOOKUP": "1.13 1.14 1.14 2.18",
    "EQUAL": "1.14 1.14 2.3 2.13 2.21",
    "EXP": "1.7 2.12",
    "EXPAND_DIMS": "1.10",
    "FILL": "1.13 2.3 2.5 2.12",
    "FLOOR": "1.9",
    "FLOOR_DIV": "1.14 1.14 2.13",
    "FLOOR_MOD": "1.13 2.13",
    "FULLY_CONNECTED": "1.5 1.10 1.14 1.14 2.0 2.1 2.3 2.3 2.3 2.11 2.15 2.17 2.18",
    "GATHER": "1.6 1.14 1.15 2.4 2.5 2.13 2.15",
    "GATHER_ND": "1.14 2.3 2.5 2.13 2.16",
    "GELU": "2.9 2.9",
    "GREATER": "1.14 1.14",
    "GREATER_EQUAL": "1.14 1.14 2.13",
    "HARD_SWISH": "1.15",
    "L2_NORMALIZATION": "1.5 1.14",
    "LEAKY_RELU": "1.13.1 2.3",
    "LESS": "1.14 1.14 2.13",
    "LESS_EQUAL": "1.14 1.14",
    "LOG": "1.14 2.15",
    "LOGICAL_AND": "1.11",
    "LOGICAL_NOT": "1.11",
    "LOGICAL_OR": "1.11",
    "LOGISTIC": "1.14 1.14 2.3",
    "LOG_SOFTMAX": "1.14 1.14",
    "MAXIMUM": "1.14 1.14 2.3 2.3",
    "MAX_POOL_2D": "1.5 1.14 2.3",
    "MEAN": "1.6 1.14 2.4",
    "MINIMUM": "1.14 1.14 2.3 2.3",
    "MIRROR_PAD": "1.13.1 2.3 2.12",
    "MUL": "1.5 1.14 1.15 2.3 2.6 2.11 2.13",
    "NEG": "1.9",
    "NOT_EQUAL": "1.14 1.14 2.3 2.21",
    "ONE_HOT": "1.11",
    "PACK": "1.11 1.14 2.3 2.13",
    "PAD": "1.5 1.14 2.4 2.6 2.21",
    "PADV2": "1.9 1.14 2.4 2.6 2.21",
    "POW": "1.10",
    "PRELU": "1.8",
    "QUANTIZE": "1.14 1.15 2.7 2.21",
    "RANGE": "1.13 2.14",
    "REDUCE_ALL": "2.6",
    "REDUCE_ANY": "1.11",
    "REDUCE_MAX": "1.11 1.14 2.5",
    "REDUCE_MIN": "1.11 1.14 2.5",
    "REDUCE_PROD": "1.11 2.6",
    "RELU": "1.5 2.1 2.5",
    "RELU6": "1.5 1.14 2.5",
    "RELU_0_TO_1": "2.10",
    "RELU_N1_TO_1": "1.5",
    "RESHAPE": "1.5",
    "RESIZE_BILINEAR": "1.7 1.14 2.2 2.5",
    "RESIZE_NEAREST_NEIGHBOR": "1.13.1 1.14 2.3 2.4",
    "REVERSE_V2": "1.14 2.2 2.5",
    "ROUND": "1.14",
    "RSQRT": "1.10 2.5 2.15",
    "SCATTER_ND": "2.1",
    "SELECT": "1.14 1.14 2.12 2.12",
    "SELECT_V2": "2.2 2.12",
    "SHAPE": "1.10",
    "SIGN": "2.11 2.12",
    "SIN": "1.9",
    "SLICE": "1.14 1.14 1.14 2.4 2.5 2.14",
    "SOFTMAX": "1.5 1.14 2.3",
    "SPACE_TO_BATCH_ND": "1.6 1.14 2.3 2.12",
    "SPACE_TO_DEPTH": "1.5 1.14",
    "SPLIT": "1.5 1.14 1.14 2.3",
    "SPLIT_V": "1.13.1 2.3",
    "SQRT": "1.10 2.21",
    "SQUARE": "1.12",
    "SQUARED_DIFFERENCE": "1.13.1 2.5",
    "SQUEEZE": "1.6 2.5",
    "STRIDED_SLICE": "1.6 1.14 2.1 2.2 2.5 2.6 2.14 2.14",
    "SUB": "1.6 1.14 2.3 2.4 2.4",
    "SUM": "1.10 1.15",
    "TANH": "1.14 1.14 2.3",
    "TILE": "1.10.1 2.2 2.8",
    "TOPK_V2": "1.7 1.14 2.13",
    "TRANSPOSE": "1.6 1.14 1.15 2.3 2.4 2.12 2.21",
    "TRANSPOSE_CONV": "1.9 2.2 2.3 2.13 2.15",
    "UNPACK": "1.11 1.14 2.2 2.3",
    "WHERE": "1.14 2.8",
    "ZEROS_LIKE": "1.12",
}
"""First release of TensorFlow with version 1, 2, ... of an operator; "-" was withdrawn."""

_FIRST_LITERT: Final = "2.0.2"
_LATER_LITERT: Final[Mapping[str, Mapping[int, str]]] = {
    "ADD": {6: "2.3.0"},
    "BROADCAST_TO": {4: "2.3.0"},
    "CAST": {8: "2.1.0", 9: "2.3.0"},
    "CONCATENATION": {5: "2.3.0", 6: "2.3.0", 7: "2.3.0"},
    "COS": {2: "2.3.0"},
    "DEQUANTIZE": {7: "2.1.0", 8: "2.3.0", 9: "2.3.0"},
    "EMBEDDING_LOOKUP": {5: "2.3.0"},
    "EQUAL": {5: "2.1.0"},
    "FILL": {5: "2.3.0"},
    "FULLY_CONNECTED": {14: "2.1.0"},
    "GATHER": {8: "2.3.0"},
    "GATHER_ND": {6: "2.3.0"},
    "GELU": {3: "2.3.0"},
    "MUL": {8: "2.3.0"},
    "NOT_EQUAL": {4: "2.1.0"},
    "PACK": {5: "2.3.0"},
    "PAD": {6: "2.3.0"},
    "PADV2": {6: "2.3.0"},
    "QUANTIZE": {4: "2.1.0", 5: "2.3.0", 6: "2.3.0"},
    "REVERSE_V2": {4: "2.3.0"},
    "SIN": {2: "2.3.0"},
    "SLICE": {7: "2.1.0", 8: "2.3.0"},
    "SOFTMAX": {4: "2.3.0"},
    "SPLIT": {5: "2.3.0"},
    "SPLIT_V": {3: "2.3.0"},
    "TRANSPOSE": {8: "2.3.0", 9: "2.3.0"},
    "UNPACK": {5: "2.3.0", 6: "2.3.0"},
}
"""Versions that ai-edge-litert 2.0.2 does not know, by the first of 2.1.0 and 2.3.0 that does
(measured: a file of one operator code for each version, opened by each release)."""
_OTHERS: Final[Mapping[str, int]] = {
    "ADD_N": 1,
    "ASSIGN_VARIABLE": 1,
    "ATAN2": 1,
    "BIDIRECTIONAL_SEQUENCE_LSTM": 3,
    "BIDIRECTIONAL_SEQUENCE_RNN": 3,
    "BITCAST": 1,
    "BITWISE_XOR": 1,
    "BROADCAST_ARGS": 1,
    "BUCKETIZE": 1,
    "CALL_ONCE": 1,
    "COMPLEX_ABS": 1,
    "CONV_3D": 1,
    "CONV_3D_TRANSPOSE": 1,
    "DENSIFY": 1,
    "DILATE": 1,
    "DYNAMIC_UPDATE_SLICE": 6,
    "EMBEDDING_LOOKUP_SPARSE": 1,
    "FAKE_QUANT": 2,
    "HASHTABLE": 1,
    "HASHTABLE_FIND": 1,
    "HASHTABLE_IMPORT": 1,
    "HASHTABLE_LOOKUP": 1,
    "HASHTABLE_SIZE": 1,
    "IF": 1,
    "IMAG": 1,
    "L2_POOL_2D": 1,
    "LOCAL_RESPONSE_NORMALIZATION": 1,
    "LSH_PROJECTION": 1,
    "LSTM": 4,
    "MATRIX_DIAG": 1,
    "MATRIX_SET_DIAG": 1,
    "MULTINOMIAL": 1,
    "NON_MAX_SUPPRESSION_V4": 1,
    "NON_MAX_SUPPRESSION_V5": 1,
    "RANDOM_STANDARD_NORMAL": 1,
    "RANDOM_UNIFORM": 1,
    "RANK": 1,
    "READ_VARIABLE": 1,
    "REAL": 1,
    "REDUCE_WINDOW": 1,
    "REVERSE_SEQUENCE": 1,
    "RFFT2D": 1,
    "RIGHT_SHIFT": 1,
    "RNN": 3,
    "SEGMENT_SUM": 1,
    "SKIP_GRAM": 1,
    "SPARSE_TO_DENSE": 3,
    "STABLEHLO_ADD": 1,
    "STABLEHLO_AND": 1,
    "STABLEHLO_CASE": 1,
    "STABLEHLO_COMPOSITE": 1,
    "STABLEHLO_GATHER": 1,
    "STABLEHLO_MAXIMUM": 1,
    "STABLEHLO_MINIMUM": 1,
    "STABLEHLO_MULTIPLY": 1,
    "STABLEHLO_PAD": 1,
    "STABLEHLO_REDUCE_WINDOW": 1,
    "STABLEHLO_RNG_BIT_GENERATOR": 1,
    "STABLEHLO_SCATTER": 1,
    "STABLEHLO_SHIFT_LEFT": 1,
    "SVDF": 4,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 4,
    "UNIDIRECTIONAL_SEQUENCE_RNN": 3,
    "UNIQUE": 1,
    "UNSORTED_SEGMENT_MAX": 1,
    "UNSORTED_SEGMENT_MIN": 1,
    "UNSORTED_SEGMENT_PROD": 1,
    "UNSORTED_SEGMENT_SUM": 1,
    "VAR_HANDLE": 1,
    "WHILE": 1,
}
_OTHERS_LITERT: Final = "2.3.0"
"""Operators of no other table with their highest version in this release (measured)."""


def first_tensorflow(name: str, version: int) -> str | None:
    """The first release of TensorFlow with the operator at `version`, "2.9.0"; None: unknown."""
    releases = _RELEASES.get(name, "").split()
    if not 0 < version <= len(releases) or releases[version - 1] == "-":
        return None
    release = releases[version - 1]
    return release if release.count(".") == 2 else f"{release}.0"


def first_litert(name: str, version: int) -> str | None:
    """The first release of LiteRT, of those that were measured, with the operator at `version`."""
    if version <= _OTHERS.get(name, 0):
        return _OTHERS_LITERT
    later = _LATER_LITERT.get(name, {}).get(version)
    if later is not None or first_tensorflow(name, version) is None:
        return later
    return _FIRST_LITERT


def release_key(release: str) -> tuple[int, ...]:
    """Sorts releases: "2.9.0" is before "2.14"."""
    return tuple(int(part) for part in release.split("."))
