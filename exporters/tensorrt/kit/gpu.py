"""GPU: its compute capability and its memory, from CUDA's runtime or from the device tree.

As a program it writes how much of the GPU's own memory is free: CUDA keeps a share of both
memories for as long as a process lives that asked it.
"""

import ctypes
import glob
import os
import sys
from typing import Callable, List, Optional

_LIBRARIES = (
    "libcudart.so",
    "libcudart.so.13",
    "libcudart.so.12",
    "libcudart.so.11.0",
    "libcudart.so.10.2",
    "/usr/local/cuda/lib64/libcudart.so",
)
"""Of CUDA 10.2, 11, 12 and 13: what JetPack 4 to 7 have."""
_WHEELS = os.path.join("nvidia", "*", "lib", "libcudart.so.*")
"""Where NVIDIA's wheels put it, which those of TensorRT need (nvidia-cuda-runtime 12 and 13)."""
_MAJOR, _MINOR = 75, 76
"""cudaDevAttrComputeCapabilityMajor and Minor (driver_types.h)."""
_INTEGRATED = 18
"""cudaDevAttrIntegrated: the GPU has the memory of the system, as a Jetson's."""
_SM = {
    "nvidia,tegra210": "5.3",
    "nvidia,tegra186": "6.2",
    "nvidia,tegra194": "7.2",
    "nvidia,tegra234": "8.7",
    "nvidia,tegra264": "11.0",
}
"""NVIDIA's "CUDA GPU Compute Capability" page; the names are those of Linux's device trees."""


def compute_capability(
    root: str = "/", load: Callable[[str], "ctypes.CDLL"] = ctypes.CDLL
) -> Optional[str]:
    """Like "8.7": what CUDA says of the first GPU, else what the device tree means."""
    return _from_cuda(load) or sm_from_compatible(_compatible(root))


def own_free_bytes(load: Callable[[str], "ctypes.CDLL"] = ctypes.CDLL) -> Optional[int]:
    """What is free of the first GPU's memory; None where it has none of its own, or no CUDA."""
    library = _runtime(load)
    if library is None or _attribute(library, _INTEGRATED) != 0:
        return None
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    if library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) != 0:
        return None
    return free.value


def is_tegra(root: str = "/") -> bool:
    """Whether the device tree names a SoC of NVIDIA's, whose GPU has the system's memory."""
    return sm_from_compatible(_compatible(root)) is not None


def sm_from_compatible(compatible: List[str]) -> Optional[str]:
    """Of the SoC, which comes last in a device tree's list."""
    return next((_SM[name] for name in reversed(compatible) if name in _SM), None)


def _from_cuda(load: Callable[[str], "ctypes.CDLL"]) -> Optional[str]:
    library = _runtime(load)
    if library is None:
        return None
    major, minor = (_attribute(library, number) for number in (_MAJOR, _MINOR))
    return None if major is None or minor is None else f"{major}.{minor}"


def _runtime(load: Callable[[str], "ctypes.CDLL"]) -> Optional["ctypes.CDLL"]:
    """CUDA's runtime: of the system, else of a wheel."""
    wheels = [path for folder in sys.path for path in sorted(glob.glob(_pattern(folder)))]
    for name in [*_LIBRARIES, *wheels]:
        try:
            return load(name)
        except OSError:
            continue
    return None


def _pattern(folder: str) -> str:
    return os.path.join(glob.escape(folder), _WHEELS)


def _attribute(library: "ctypes.CDLL", number: int) -> Optional[int]:
    """An attribute of the first GPU; None where CUDA does not say it."""
    value = ctypes.c_int(0)
    if library.cudaDeviceGetAttribute(ctypes.byref(value), number, 0) != 0:
        return None
    return value.value


def _compatible(root: str) -> List[str]:
    try:
        with open(os.path.join(root, "proc/device-tree/compatible"), "rb") as file:
            return [name.decode("ascii", "replace") for name in file.read().split(b"\0") if name]
    except OSError:
        return []


if __name__ == "__main__":
    sys.stdout.write(str(own_free_bytes()))
