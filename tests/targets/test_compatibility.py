from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from edgeship.artifact import ArtifactFile, Manifest, Requirements, RuntimeNeed
from edgeship.contract import Contract
from edgeship.errors import IntegrityRefused, Problem
from edgeship.targets import load_target
from edgeship.targets.board_facts import BoardFacts, FoundRuntime
from edgeship.targets.compatibility import differences, misfits, unchecked
from edgeship.targets.compatibility_files import FileNeeds
from edgeship.targets.compatibility_runtimes import comparable_release, obstacle, usable_runtimes
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


def test_a_board_with_all_of_it_fits() -> None:
    assert misfits(manifest(), BOARD, PI_4, copied=[replace(SERVER, features=())]) == []
    assert usable_runtimes(manifest(), BOARD) == (LITERT, TFLITE)


def test_what_the_probe_did_not_read_refuses_nothing() -> None:
    unknown = replace(LITERT, version=None)
    facts = BoardFacts(at="", runtimes=(unknown,))
    assert misfits(manifest(isa=("asimddp",)), facts, PI_4, copied=[SERVER]) == []
    assert unchecked(manifest(isa=("asimddp",)), facts, copied=[SERVER]) == [
        "the machine",
        "available memory",
        "free disk",
        "CPU features",
        "page size",
        "glibc",
        "libstdc++",
        "whether litert of unknown version is new enough",
    ]
    assert unchecked(manifest(), BOARD, copied=[SERVER]) == []


def test_no_runtime_names_what_the_catalogue_knows() -> None:
    problem = only(misfits(manifest(), replace(BOARD, runtimes=(ORT,)), PI_4))
    assert problem.expected == "litert from 2.0.2 on or tflite_runtime from 2.12.0 on"
    assert problem.found == "onnxruntime 1.31.1"
    assert problem.remedy == "install litert 2.3.0 or tflite_runtime 2.14.0 there"
    assert problem.where == "raspberry-pi-4/tflite-int8"


def test_another_artifact_of_the_build_that_fits_is_named() -> None:
    facts = replace(BOARD, runtimes=(ORT,))
    large = replace(
        onnx(), requires=replace(onnx().requires, memory_bytes=10**12), precision="fp32"
    )
    others = [manifest(precision="fp32"), large, onnx()]
    problem = only(misfits(manifest(), facts, PI_4, others=others))
    assert problem.remedy.endswith(", or take raspberry-pi-4/onnx-int8, which fits")


def test_another_python_than_the_catalogue_knows_the_versions_for_is_told() -> None:
    facts = replace(BOARD, runtimes=(), python="3.13.5")
    assert only(misfits(manifest(), facts, PI_4)).remedy.endswith(
        "(known for Python 3.11 of Raspberry Pi OS 12 (bookworm), 64 bit; the board has 3.13.5)"
    )


def test_no_python_is_told() -> None:
    facts = replace(BOARD, runtimes=(), python=None)
    problem = only(misfits(manifest(), facts, PI_4))
    assert problem.found == "no runtime, and no Python to look for one with"


def test_runtimes_that_are_older_or_broken_say_which() -> None:
    broken = replace(TFLITE, problem="it needs numpy below 2, there is 2.1")
    facts = replace(BOARD, runtimes=(broken, replace(LITERT, version="1.4.0")))
    assert only(misfits(manifest(), facts, PI_4)).found == (
        "litert 1.4.0, which is older; tflite_runtime 2.14.0, but it needs numpy below 2, "
        "there is 2.1"
    )
    assert usable_runtimes(manifest(), replace(facts, runtimes=(*facts.runtimes, TFLITE))) == (
        TFLITE,
    )


def test_what_is_copied_along_counts_as_a_runtime() -> None:
    gguf = manifest(Format.GGUF, RuntimeNeed(runtime="llama.cpp", min="0.5.0"), precision="q4_0")
    bare = replace(BOARD, runtimes=())
    assert len(misfits(gguf, bare, PI_4)) == 1
    brought = replace(LLAMA, version=None)
    assert misfits(gguf, bare, PI_4, brought=[brought]) == []
    assert usable_runtimes(gguf, BOARD, brought=[brought]) == (brought, LLAMA)


@pytest.mark.parametrize(
    ("version", "kind", "release"),
    [
        ("0.5.0", "program", "0.5.0"),
        ("0.5.0-dev (build 1, commit 0c1e570)", "program", "0.5.0"),
        ("0.6.1", "program", "0.6.1"),
        ("b4321", "program", None),
        ("4321 (1a2b3c4)", "program", None),
        ("0.3.36", "python", "0.5.0"),
        ("0.3.40", "python", "0.5.0"),
        ("0.3.2", "python", None),
        (None, "python", None),
    ],
)
def test_releases_of_llama_cpp(version: str | None, kind: str, release: str | None) -> None:
    found = FoundRuntime(name="llama.cpp", version=version, kind=kind)
    assert comparable_release(found) == release
    assert obstacle(RuntimeNeed(runtime="llama.cpp", min="0.5.0"), found, None) is None
    gguf = manifest(Format.GGUF, RuntimeNeed(runtime="llama.cpp", min="0.5.0"))
    assert bool(unchecked(gguf, replace(BOARD, runtimes=(found,)))) == (release is None)


@pytest.mark.parametrize(
    ("version", "opset", "ir", "fits"),
    [
        ("1.14.1", 18, 8, True),
        ("1.14.1", 19, 8, False),
        ("1.14.1", 18, 9, False),
        ("1.17.3", 20, 9, True),
        ("1.20.1", 22, 10, False),
        ("1.23.2", 23, 11, True),
        ("1.23.2", 23, 12, False),
        ("1.31.1", 26, 13, True),
    ],
)
def test_opset_and_ir_of_the_file(version: str, opset: int, ir: int, fits: bool) -> None:
    found = replace(ORT, version=version)
    needs = FileNeeds(onnx_opset=opset, onnx_ir=ir)
    text = obstacle(RuntimeNeed(runtime="onnxruntime", min="1.14"), found, needs)
    assert (text is None) == fits
    if text is not None:
        assert str(opset if "opset" in text else ir) in text


def test_the_installed_onnxruntime_agrees_with_the_table(tmp_path: Path) -> None:
    model = pytest.importorskip("onnx").helper
    runtime = pytest.importorskip("onnxruntime")
    need = RuntimeNeed(runtime="onnxruntime", min="1.14")
    found = replace(ORT, version=runtime.__version__)
    for opset in (18, 26, 27):
        value = model.make_tensor_value_info("x", 1, [1])
        out = model.make_tensor_value_info("y", 1, [1])
        graph = model.make_graph([model.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
        proto = model.make_model(graph, opset_imports=[model.make_opsetid("", opset)])
        proto.ir_version = 8
        file = tmp_path / "model.onnx"
        file.write_bytes(proto.SerializeToString())
        try:
            runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            is_taken = True
        except Exception:
            is_taken = False
        needs = FileNeeds(onnx_opset=opset, onnx_ir=8)
        assert (obstacle(need, found, needs) is None) == is_taken, opset


def test_the_model_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes.fromhex("080942021015"))  # IR 9, opset 21 of the default domain
    facts = replace(BOARD, runtimes=(replace(ORT, version="1.19.2"),))
    assert misfits(onnx(), facts, PI_4, model_file=file) == []
    facts = replace(BOARD, runtimes=(replace(ORT, version="1.17.3"),))
    problem = only(misfits(onnx(), facts, PI_4, model_file=file))
    assert problem.found == "onnxruntime 1.17.3, whose highest opset is 20 and the file's 21"
    file.write_bytes(b"not a model")
    with pytest.raises(IntegrityRefused):
        misfits(onnx(), facts, PI_4, model_file=file)


def test_unknown_gguf_types_fit_no_llama_cpp() -> None:
    need = RuntimeNeed(runtime="llama.cpp", min="0.5.0")
    needs = FileNeeds(gguf_version=3, gguf_types=("type 99",), unknown_types=("type 99",))
    assert "no llama.cpp reads type 99" in (obstacle(need, LLAMA, needs) or "")


def test_dotprod_program_is_refused_for_a_pi_4_and_not_for_a_pi_5() -> None:
    problem = only(misfits(manifest(), BOARD, PI_4, copied=[SERVER]))
    assert problem.where == "llama-server"
    assert "no asimddp" in problem.what
    assert "illegal instruction" in problem.what
    pi_5 = replace(BOARD, features=(*BOARD.features, "asimddp"))
    assert misfits(manifest(), pi_5, PI_4, copied=[SERVER]) == []


def test_features_of_the_artifact_itself() -> None:
    problem = only(misfits(manifest(isa=("crc32", "i8mm")), BOARD, PI_4))
    assert (problem.where, problem.expected) == ("raspberry-pi-4/tflite-int8", "crc32, i8mm")
    assert "no i8mm" in problem.what


def test_features_that_are_only_used_where_they_are_need_nothing() -> None:
    program = replace(SERVER, features=(), optional_features=("asimddp", "sve"))
    assert misfits(manifest(), BOARD, PI_4, copied=[program]) == []


@pytest.mark.parametrize(
    ("changed", "name", "expected", "found"),
    [
        ({"glibc": "2.38"}, "glibc", "2.38 or newer", "2.36"),
        ({"glibcxx": "3.4.32"}, "libstdc++", "3.4.32 or newer", "3.4.30"),
        ({"machine": "x86_64"}, "machine", "x86_64", "aarch64"),
    ],
)
def test_libraries_and_machine(
    changed: dict[str, str], name: str, expected: str, found: str
) -> None:
    program = replace(SERVER, features=(), **changed)  # type: ignore[arg-type]  # all are text
    problem = only(misfits(manifest(), BOARD, PI_4, copied=[program]))
    assert name in problem.what
    assert (problem.expected, problem.found) == (expected, found)


def test_pages_larger_than_the_segments() -> None:
    program = replace(SERVER, features=(), alignment=4096)
    large = replace(BOARD, page_size=16384)
    assert misfits(manifest(), BOARD, PI_4, copied=[program]) == []
    problem = only(misfits(manifest(), large, PI_4, copied=[program]))
    assert (problem.expected, problem.found) == ("pages of at most 4096 bytes", "16384 bytes")
    assert misfits(manifest(), large, PI_4, copied=[replace(program, alignment=65536)]) == []


def test_memory_that_is_not_there() -> None:
    facts = replace(BOARD, memory_available_bytes=100_000_000)
    big = manifest(precision="fp32", memory_bytes=200_000_000)
    problem = only(misfits(big, facts, PI_4, others=[manifest()]))
    assert (problem.expected, problem.found) == ("200.0 MB available", "100.0 MB")
    assert problem.remedy.endswith("take raspberry-pi-4/tflite-int8, which fits")
    assert misfits(big, replace(facts, memory_available_bytes=200_000_000), PI_4) == []
    assert misfits(manifest(memory_bytes=None), facts, PI_4) == []


def test_memory_of_a_language_model_depends_on_its_context() -> None:
    need = RuntimeNeed(runtime="llama.cpp", min="0.5.0")
    big = manifest(Format.GGUF, need, precision="q4_0", memory_bytes=10**10)
    assert "targets.raspberry-pi-4.gguf.context" in only(misfits(big, BOARD, PI_4)).remedy


def test_disk_that_is_full() -> None:
    problem = only(misfits(manifest(), replace(BOARD, disk_free_bytes=299_999), PI_4))
    assert (problem.expected, problem.found) == ("300.0 kB free", "300.0 kB")


def test_another_machine_than_the_target() -> None:
    facts = replace(BOARD, arch="armv7l")
    assert (
        only(misfits(manifest(), facts, PI_4)).found == "Raspberry Pi 4 Model B Rev 1.5 with armv7l"
    )


def test_a_kit_is_for_one_compute_capability() -> None:
    orin = load_target("jetson-orin-nano")
    trt = FoundRuntime(name="tensorrt", version="10.3.0.30", kind="program")
    kit = manifest(Format.TENSORRT, RuntimeNeed(runtime="tensorrt", min="10.3.0"), precision="kit")
    facts = replace(BOARD, runtimes=(trt,), sm="8.7")
    assert misfits(kit, facts, orin) == []
    assert only(misfits(kit, replace(facts, sm="7.2"), orin)).found == "7.2"
    assert misfits(manifest(), replace(BOARD, sm="7.2"), orin) == []


def test_every_misfit_is_told_at_once() -> None:
    facts = replace(BOARD, runtimes=(), memory_available_bytes=1, disk_free_bytes=1, arch="armv7l")
    assert len(misfits(manifest(isa=("i8mm",)), facts, PI_4, copied=[SERVER])) == 6


def test_a_board_like_its_row_has_no_differences() -> None:
    assert differences(BOARD, PI_4) == []
    assert differences(BoardFacts(at=""), PI_4) == []


def test_differences_from_the_row() -> None:
    facts = replace(
        BOARD, glibc="2.31", python="3.9.2", page_size=16384, memory_bytes=1_000_000_000
    )
    assert differences(facts, PI_5) == [
        f"glibc is 2.31, 2.36 in {PI_5.os.image}",
        f"Python is 3.9.2, 3.11 in {PI_5.os.image}",
        "the CPU lacks "
        + ", ".join(feature for feature in PI_5.cpu.features if feature != "crc32")
        + " of raspberry-pi-5",
        "memory is 1.0 GB, 4.3 GB by raspberry-pi-5",
        'targets.raspberry-pi-5.os = "bookworm" was built for; there is also trixie',
    ]
