"""Replacements: what to write in a module instead of an operator that has no int8 kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_REPLACEMENTS: Final[Mapping[str, str]] = {
    "ABS": "write torch.maximum(x, -x)",
    "ARG_MAX": "give the logits, and take the argmax of them outside of the model",
    "ARG_MIN": "give the values, and take the argmin of them outside of the model",
    "CAST": "take the tensor as a float input: it becomes an int8 one",
    "CUMSUM": "multiply by a triangular matrix",
    "EMBEDDING_LOOKUP": "look the rows up outside of the model, and take them as an input",
    "EXP": "use softmax, sigmoid or tanh, or retrain with an activation like SiLU or GELU",
    "LEAKY_RELU": "write torch.maximum(x, slope * x)",
    "LOG_SOFTMAX": "give the logits: their order is the same",
    "MINIMUM": "write -torch.maximum(-x, -y), clamp likewise",
    "POW": "multiply x by itself",
    "REDUCE_MAX": "write -(-x).amin(dim)",
    "RELU6": "write x.relu() - (x - 6).relu()",
    "RELU_0_TO_1": "write x.relu() - (x - 1).relu()",
    "REVERSE_V2": "index with the positions in reverse order",
}
"""Each of those that compute the same was converted and quantized: no float is left (a test)."""
_OTHERS: Final = "put another operator in its place"


def replacement_of(operator: str) -> str:
    """What to do about the operator, as an imperative."""
    return _REPLACEMENTS.get(operator, _OTHERS)
