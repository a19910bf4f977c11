"""Adapter: between the float model's tensors and those of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edgeship.errors import ConfigurationError, ExportFailed, Problem
from edgeship.vocabulary import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeship.contract import Contract, TensorSpec
    from edgeship.runtimes.protocol import Session

_NHWC_FROM_NCHW: Final = (0, 2, 3, 1)
_NCHW_FROM_NHWC: Final = (0, 3, 1, 2)


class FloatSession:
    """A session that takes and gives what the float model does.

    What is the same on both sides is passed on as it is, without a copy. Outputs that the contract
    does not name, as in observing, are passed on too.
    """

    def __init__(
        self, session: Session, model_inputs: Sequence[TensorSpec], contract: Contract
    ) -> None:
        self._session = session
        self._model_inputs = tuple(model_inputs)
        self._contract = contract

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Session.run`, with the float model's layouts and dtypes."""
        encoded = encode_inputs(inputs, self._model_inputs, self._contract)
        return decode_outputs(self._session.run(encoded), self._contract)


def encode_inputs(
    inputs: Mapping[str, np.ndarray], model_inputs: Sequence[TensorSpec], contract: Contract
) -> dict[str, np.ndarray]:
    """The file's inputs from the float model's: layout, then quantization or narrower integers.

    Args:
        inputs: By name, as the float model takes them; not modified.
        model_inputs: The float model's.
        contract: The file's.

    Raises:
        ConfigurationError: A value that an integer type of the file cannot hold.
        ExportFailed: The file wants another dtype, and says no scale for it.
    """
    layouts = {spec.name: spec.layout for spec in model_inputs}
    encoded = {}
    for spec in contract.inputs:
        values = inputs[spec.name]
        if layouts[spec.name] is Layout.NCHW and spec.layout is Layout.NHWC:
            values = np.ascontiguousarray(values.transpose(_NHWC_FROM_NCHW))
        encoded[spec.name] = _converted(values, spec)
    return encoded


def decode_outputs(outputs: Mapping[str, np.ndarray], contract: Contract) -> dict[str, np.ndarray]:
    """The float model's outputs from the file's: float32 where they have a scale, images NCHW."""
    specs = {spec.name: spec for spec in contract.outputs}
    decoded = {}
    for name, values in outputs.items():
        spec = specs.get(name)
        if spec is not None and spec.scale is not None:
            values = dequantize(values, spec)
        if spec is not None and spec.layout is Layout.NHWC:
            values = np.ascontiguousarray(values.transpose(_NCHW_FROM_NHWC))
        decoded[name] = values
    return decoded


def quantize(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Integers of `spec` from float32 values, saturating; infinities become the ends.

    `round(value * (1 / scale)) + zero_point` in float32, halves to even: what XNNPACK's QUANTIZE
    does, bit for bit (kernels f32-qs8-vcvt; LiteRT 2.3.0, measured). TFLite's reference kernel
    divides, and rounds halves away from zero (reference/quantize.h, AffineQuantize), so that it
    gives the neighbour where a value lies on the edge of two steps.

    Raises:
        ConfigurationError: NaN.
    """
    assert spec.scale is not None  # the caller has looked
    if np.isnan(values).any():
        problem = Problem(
            where=f"input {spec.name!r}",
            what=f"the sample holds NaN, which {spec.dtype} cannot",
            expected="numbers",
            found=f"{int(np.isnan(values).sum())} of {values.size} values NaN",
            remedy="remove the sample",
        )
        raise ConfigurationError(problem)
    limits = np.iinfo(spec.dtype)
    with np.errstate(over="ignore"):  # infinity saturates like any other large value
        steps = np.rint(values * (np.float32(1) / np.float32(spec.scale)))
    shifted = steps + np.float32(spec.zero_point or 0)
    return np.clip(shifted, limits.min, limits.max).astype(spec.dtype)


def dequantize(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """float32 `scale * (value - zero_point)`, for integers of `spec`."""
    assert spec.scale is not None  # the caller has looked
    steps = values.astype(np.int32) - (spec.zero_point or 0)
    return np.float32(spec.scale) * steps.astype(np.float32)


def _converted(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if values.dtype.name == spec.dtype:
        return values
    wanted = np.dtype(spec.dtype)
    if values.dtype == np.float32 and spec.scale is not None:
        return quantize(values, spec)
    if values.dtype.kind in "iu" and wanted.kind in "iu" and spec.scale is None:
        return _cast_integers(values, spec)
    problem = Problem(
        where=f"input {spec.name!r}",
        what="the float model's values cannot become the file's",
        expected=spec.dtype if spec.scale is None else f"{spec.dtype} with a scale",
        found=values.dtype.name,
        remedy="report this as a defect of edgeship",
    )
    raise ExportFailed(problem)


def _cast_integers(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    limits = np.iinfo(spec.dtype)
    beyond = values[(values < limits.min) | (values > limits.max)]
    if beyond.size:
        problem = Problem(
            where=f"input {spec.name!r}",
            what=f"the sample holds a number that {spec.dtype} cannot",
            expected=f"{limits.min}..{limits.max}",
            found=str(beyond[0]),
            remedy="correct the sample",
        )
        raise ConfigurationError(problem)
    return values.astype(spec.dtype)
