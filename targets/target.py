"""Target: a class of board with one OS image, a row in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edgeship.vocabulary import Format


class Arch(StrEnum):
    """Machine of the board's userland, as `uname -m` prints it."""

    AARCH64 = "aarch64"
    ARMV7L = "armv7l"
    X86_64 = "x86_64"


class Runtime(StrEnum):
    """What loads an artifact on a board; the names that manifests use."""

    ONNXRUNTIME = "onnxruntime"
    LITERT = "litert"
    TFLITE_RUNTIME = "tflite_runtime"
    LLAMA_CPP = "llama.cpp"
    TENSORRT = "tensorrt"


class ActivationType(StrEnum):
    """Type of the activations of an int8 ONNX file."""

    UINT8 = "uint8"
    INT8 = "int8"


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The board's CPU; `features` are Linux hwcap names (/proc/cpuinfo) beyond the base ISA.

    The base of aarch64 is Armv8.0-A with `fp` and `asimd`, the one of x86_64 is x86-64-v1. A name
    that is missing is not promised: single boards of the class may still have it.
    """

    arch: Arch
    cores: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        sm: Compute capability, like `"8.7"`.
        dla: Number of DLA cores.
        precisions: What its engines can be built in, of `"fp16"` and `"int8"`.
    """

    sm: str
    dla: int
    precisions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OsImage:
    """One OS image of the board: what its package manager gives; None where it has none.

    `page_size` is in bytes, None where nobody looked it up.
    """

    id: str
    image: str
    python: str | None = None
    glibc: str | None = None
    tensorrt: str | None = None
    page_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Emulation:
    """How QEMU stands in for the board: `-cpu` and `-m`."""

    qemu_cpu: str
    memory: str


@dataclass(frozen=True, kw_only=True)
class RuntimeFact:
    """A runtime that the board can be given, at a version known to install there."""

    name: Runtime
    version: str


@dataclass(frozen=True, kw_only=True)
class FormatFacts:
    """What the board takes of one format.

    Attributes:
        precisions: Default precisions, the one that ships first; empty where it takes none.
        runtimes: Runtimes that load it there, the preferred one first.
        activation_type: onnx int8: the faster type on this CPU.
        reduce_range: onnx int8: weights in 7 bits, because the CPU's 8-bit products saturate.
        reason: Why the board takes none of the format, or less of it than others.
    """

    precisions: tuple[str, ...]
    runtimes: tuple[RuntimeFact, ...]
    activation_type: ActivationType | None = None
    reduce_range: bool = False
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a fact of the row comes from.

    Attributes:
        key: Dotted key of the fact, or of a table of facts.
        url: Address, document or package; where there is none "measured", "assumption" or
            "not looked up".
        note: What was read or measured there, and what was not.
    """

    key: str
    url: str
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """One row of the catalogue, with the OS image that was chosen.

    `formats` has every member of `Format`; `memory_bytes` is what the board is sold with.
    """

    name: str
    board: str
    memory_bytes: int
    cpu: Cpu
    gpu: Gpu | None
    os: OsImage
    os_choices: tuple[str, ...]
    emulation: Emulation | None
    formats: Mapping[Format, FormatFacts]
    sources: tuple[Source, ...]
