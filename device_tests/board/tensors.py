"""Tensors: little-endian files and raw arrays, and the integers of a quantized one."""

import hashlib
import os
from typing import Any, Dict, Optional

import numpy as np

from edgeship.device_tests.board.stopped import Stopped


def read_tensor(directory: str, entry: Dict[str, Any]) -> np.ndarray:
    """The array of an entry with "file", "dtype", "shape" and perhaps "sha256"; C order.

    Raises:
        Stopped: "damaged": no such file, another length or digest.
    """
    try:
        with open(os.path.join(directory, entry["file"]), "rb") as file:
            content = file.read()
    except OSError as error:
        raise Stopped("damaged", "{}: {}".format(entry["file"], error.strerror)) from error
    digest: Optional[str] = entry.get("sha256")
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise Stopped("damaged", "{} is not the tensor that was written".format(entry["file"]))
    dtype = np.dtype(entry["dtype"])
    count = 1
    for size in entry["shape"]:
        count *= size
    if len(content) != count * dtype.itemsize:
        message = "{} has {} bytes, which are no {}{}".format(
            entry["file"], len(content), entry["dtype"], entry["shape"]
        )
        raise Stopped("damaged", message)
    values = np.frombuffer(content, dtype.newbyteorder("<")).reshape(entry["shape"])
    return values.astype(dtype)  # which may be written to, and is in this machine's byte order


def little_endian(values: np.ndarray) -> bytes:
    """Contents of a tensor's file."""
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def quantize(values: np.ndarray, spec: Dict[str, Any]) -> np.ndarray:
    """Integers of `spec` from float32 values, saturating.

    `rint(value * (1 / scale)) + zero_point` in float32, halves to even, as the golden pack's writer
    does (edgeship.runtimes.adapter.quantize).
    """
    limits = np.iinfo(spec["dtype"])
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(values * (np.float32(1) / np.float32(spec["scale"])))
    shifted = steps + np.float32(spec.get("zero_point") or 0)
    return np.clip(shifted, limits.min, limits.max).astype(spec["dtype"])


def real(values: np.ndarray, spec: Dict[str, Any]) -> np.ndarray:
    """What the stored values mean: float32 `scale * (value - zero_point)`, or the values."""
    if spec.get("scale") is None or values.dtype.kind not in "iu":
        return values
    steps = values.astype(np.int32) - np.int32(spec.get("zero_point") or 0)
    return np.float32(spec["scale"]) * steps.astype(np.float32)


def spelled(values: np.ndarray) -> str:
    """Type and shape, for messages: "float32[1, 10]"."""
    return f"{values.dtype.name}{list(values.shape)}"
