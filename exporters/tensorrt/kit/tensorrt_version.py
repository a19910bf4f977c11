"""Versions of TensorRT: how they are written, and what changed between them.

The table is what the bindings of 8.6.1, 10.0.1 to 10.16.1 and 11.0 to 11.4 declare, what the
option parser of trtexec takes in 8.2, 8.5, 8.6, 10.3, 10.13, 10.16 and 11.1 (NVIDIA/TensorRT,
samples/common/sampleOptions.cpp of each release), and for 8.2's Python that release's
python/src/infer/pyCore.cpp. Nothing of it was tried with a GPU.
"""

import re
from typing import NamedTuple, Optional, Tuple

from edgeship.exporters.tensorrt.kit.stopped import Stopped

Numbers = Tuple[int, ...]


class Generation(NamedTuple):
    """What one major version takes.

    Attributes:
        major: Of the version.
        has_implicit_batch: Networks must be asked for with EXPLICIT_BATCH.
        has_precision_flags: BuilderFlag.FP16 and INT8 exist, and `--fp16`, `--int8`.
        has_typed_networks: STRONGLY_TYPED has to be asked for; from 11 on it is the only way.
        has_workspace_size: The workspace is `config.max_workspace_size` and `--workspace=MiB`,
            which 8.2 needs and 8.6 still takes; else a memory pool.
        build_only: Option that leaves the measurement out.
        streams: Option for the number of streams.
        is_quick_by_default: trtexec uses CUDA graphs and spin waits, and leaves transfers out,
            unless it is told not to.
    """

    major: int
    has_implicit_batch: bool
    has_precision_flags: bool
    has_typed_networks: bool
    has_workspace_size: bool
    build_only: str
    streams: str
    is_quick_by_default: bool


_GENERATIONS: Tuple[Generation, ...] = (
    Generation(8, True, True, False, True, "--buildOnly", "--streams", False),
    Generation(10, False, True, True, False, "--skipInference", "--infStreams", False),
    Generation(11, False, False, False, False, "--skipInference", "--infStreams", True),
)


def numbers(version: str) -> Numbers:
    """Up to three leading numbers: (10, 13, 3) of "10.13.3.9.post1"; () of none."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split("."))[:3] if match else ()


def spelled(version: Numbers) -> str:
    """As people write it."""
    return ".".join(str(part) for part in version)


def version_from_banner(text: str) -> Optional[Numbers]:
    """Version in trtexec's first line, `&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # ...`.

    Four digits are 1000 major + 100 minor + patch, from 10 on five and more 10000 major + 100
    minor + patch (NV_TENSORRT_VERSION of NvInferVersion.h); some builds write the numbers out.
    """
    match = re.search(r"\[TensorRT v([\d.]+)\]", text)
    if match is None:
        return None
    if "." in match.group(1):
        return numbers(match.group(1))
    value = int(match.group(1))
    unit = 1000 if value < 10000 else 10000
    return value // unit, value % unit // 100, value % 100


def generation_of(version: Numbers) -> Generation:
    """What this version takes.

    Raises:
        Stopped: "incompatible": nothing is known of it.
    """
    for generation in _GENERATIONS:
        if version[:1] == (generation.major,):
            return generation
    known = ", ".join(str(one.major) for one in _GENERATIONS)
    message = "TensorRT {}: this kit knows the major versions {}".format(spelled(version), known)
    raise Stopped("incompatible", message)


def is_accepted(version: Numbers, accepts: str) -> bool:
    """Whether a kit for `accepts`, like "10.3", is for this version: same major and minor."""
    wanted = numbers(accepts)
    return bool(wanted) and version[: len(wanted)] == wanted
