"""GPU: its compute capability, from CUDA's runtime or from the device tree."""

import ctypes
import os
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
_MAJOR, _MINOR = 75, 76
"""cudaDevAttrComputeCapabilityMajor and Minor (driver_types.h)."""
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


def sm_from_compatible(compatible: List[str]) -> Optional[str]:
    """Of the SoC, which comes last in a device tree's list."""
    return next((_SM[name] for name in reversed(compatible) if name in _SM), None)


def _from_cuda(load: Callable[[str], "ctypes.CDLL"]) -> Optional[str]:
    for name in _LIBRARIES:
        try:
            library = load(name)
        except OSError:
            continue
        parts = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int(0)
            if library.cudaDeviceGetAttribute(ctypes.byref(value), attribute, 0) != 0:
                return None
            parts.append(str(value.value))
        return ".".join(parts)
    return None


def _compatible(root: str) -> List[str]:
    try:
        with open(os.path.join(root, "proc/device-tree/compatible"), "rb") as file:
            return [name.decode("ascii", "replace") for name in file.read().split(b"\0") if name]
    except OSError:
        return []
