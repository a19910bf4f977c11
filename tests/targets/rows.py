"""A board, and manifests to hold against it; loaded with run_path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgeship.artifact import ArtifactFile, Manifest, Requirements, RuntimeNeed
from edgeship.contract import Contract
from edgeship.errors import Problem
from edgeship.targets import load_target
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.elf_needs import ElfNeeds
from edgeship.vocabulary import Format, Role

PI_4: Final = load_target("raspberry-pi-4")
PI_5: Final = load_target("raspberry-pi-5")
LITERT: Final = FoundRuntime(name="litert", version="2.3.0", kind="python")
TFLITE: Final = FoundRuntime(name="tflite_runtime", version="2.14.0", kind="python")
ORT: Final = FoundRuntime(name="onnxruntime", version="1.31.1", kind="python")
LLAMA: Final = FoundRuntime(name="llama.cpp", version="0.5.0", kind="program", path="/bin/l")
BOARD: Final = BoardFacts(
    at="",
    model="Raspberry Pi 4 Model B Rev 1.5",
    arch="aarch64",
    cpu="Cortex-A72",
    features=("fp", "asimd", "evtstrm", "crc32", "cpuid"),
    memory_bytes=4_000_000_000,
    memory_available_bytes=3_500_000_000,
    page_size=4096,
    disk_free_bytes=10_000_000_000,
    glibc="2.36",
    glibcxx="3.4.30",
    python="3.11.2",
    numpy="1.26.4",
    runtimes=(TFLITE, LITERT, ORT, LLAMA),
)
NEEDS: Final = (
    RuntimeNeed(runtime="litert", min="2.0.2"),
    RuntimeNeed(runtime="tflite_runtime", min="2.12.0"),
)
SERVER: Final = ElfNeeds(
    name="llama-server", machine="aarch64", glibc="2.31", glibcxx="3.4.28", features=("asimddp",)
)


def manifest(
    format: Format = Format.TFLITE,
    *needs: RuntimeNeed,
    precision: str = "int8",
    isa: tuple[str, ...] = (),
    memory_bytes: int | None = 4_000_000,
) -> Manifest:
    return Manifest(
        edgeship="0.1.0",
        target="raspberry-pi-4",
        format=format,
        precision=precision,
        files=(ArtifactFile(name="model", role=Role.MODEL, bytes=300_000, sha256="0" * 64),),
        source={},
        tools={},
        contract=Contract(inputs=(), outputs=()),
        requires=Requirements(any_of=needs or NEEDS, isa=isa, memory_bytes=memory_bytes),
    )


def onnx(minimum: str = "1.14") -> Manifest:
    return manifest(Format.ONNX, RuntimeNeed(runtime="onnxruntime", min=minimum))


def only(problems: Sequence[Problem]) -> Problem:
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]
