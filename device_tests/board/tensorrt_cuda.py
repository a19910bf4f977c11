"""CUDA's runtime library by ctypes: memory of the GPU, one stream, and which GPU it is."""

import ctypes
from typing import Any, List

import numpy as np

from edgeship.device_tests.board.stopped import Stopped

_NAMES = (
    "libcudart.so",
    "libcudart.so.13",
    "libcudart.so.12",
    "libcudart.so.11.0",
    "libcudart.so.10.2",
    "/usr/local/cuda/lib64/libcudart.so",
)
"""Of CUDA 10.2, 11, 12 and 13: what JetPack 4 to 7 have."""
_TO_DEVICE, _TO_HOST = 1, 2
"""cudaMemcpyHostToDevice and cudaMemcpyDeviceToHost (driver_types.h)."""
_OUTCOMES = {2: "out-of-memory", 35: "no-runtime", 100: "no-runtime"}
"""cudaErrorMemoryAllocation, cudaErrorInsufficientDriver, cudaErrorNoDevice (driver_types.h)."""
_MAJOR, _MINOR = 75, 76
"""cudaDevAttrComputeCapabilityMajor and Minor (driver_types.h)."""

Library = Any
"""A ctypes.CDLL of libcudart."""


def load_library() -> Library:
    """libcudart; raises Stopped, "no-runtime"."""
    for name in _NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise Stopped("no-runtime", "CUDA's runtime library (libcudart) is not found here")


class Cuda:
    """The first GPU. Sizes and addresses go as what C takes: ctypes would cut them to int."""

    def __init__(self, library: Library) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p
        self._allocated: List[int] = []
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        self.stream = int(stream.value or 0)

    def capability(self) -> str:
        """Compute capability, like "8.7"."""
        parts = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            parts.append(str(value.value))
        return ".".join(parts)

    def allocate(self, size_bytes: int) -> int:
        """Address of so much memory of the GPU, until `close`."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(1, size_bytes)))
        self._allocated.append(int(address.value or 0))
        return self._allocated[-1]

    def copy_to(self, address: int, values: np.ndarray) -> None:
        """Queue a copy of a contiguous array to the GPU."""
        self._copy(
            ctypes.c_void_p(address), ctypes.c_void_p(values.ctypes.data), values, _TO_DEVICE
        )

    def copy_from(self, address: int, values: np.ndarray) -> None:
        """Queue a copy into a contiguous array; it has its values after `wait`."""
        self._copy(ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(address), values, _TO_HOST)

    def wait(self) -> None:
        """Until all that was queued is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def close(self) -> None:
        """Give everything back; further calls do nothing."""
        while self._allocated:
            self._library.cudaFree(ctypes.c_void_p(self._allocated.pop()))
        if self.stream:
            self._library.cudaStreamDestroy(ctypes.c_void_p(self.stream))
            self.stream = 0

    def _copy(
        self,
        target: ctypes.c_void_p,
        source: ctypes.c_void_p,
        values: np.ndarray,
        kind: int,
    ) -> None:
        size, stream = ctypes.c_size_t(values.nbytes), ctypes.c_void_p(self.stream)
        self._call("cudaMemcpyAsync", target, source, size, kind, stream)

    def _call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - ctypes
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            said = self._library.cudaGetErrorString(status).decode("ascii", "replace")
            raise Stopped(_OUTCOMES.get(status, "failed"), f"{name}: {said} ({status})")
