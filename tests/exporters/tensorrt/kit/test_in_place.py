"""A host of another kind than a Jetson: a GPU with memory of its own, `tensorrt` as a package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for a stand-in of CUDA"),
]
HERE = Path(__file__).parent
CUDART = """
#include <stddef.h>
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : 0;  /* SM 8.9, not integrated */
    return device == 0 ? 0 : 101;
}
int cudaMemGetInfo(size_t *free, size_t *total) {
    *free = (size_t)6 << 30;
    *total = (size_t)8 << 30;
    return 0;
}
"""
PACKAGE = """
import json
import runpy
import sys
from pathlib import Path

here = Path({here!r})
made = runpy.run_path(str(here / "fake_tensorrt.py"))["make_module"](
    json.loads((here / "data/tensorrt_10.3.0_cu12.json").read_text())
)
sys.modules[__name__] = made
"""


ASK = """
import ctypes
from edgeship.exporters.tensorrt.kit import gpu

def load(name):
    if not name.startswith({packages!r}):
        raise OSError("as where CUDA is not installed")
    return ctypes.CDLL(name)

print(gpu.compute_capability("/nowhere", load), gpu.own_free_bytes(load))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip would have put `tensorrt`, and NVIDIA's wheel its CUDA runtime."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "tensorrt.py").write_text(PACKAGE.format(here=str(HERE)))
    library = folder / "nvidia/cuda_runtime/lib/libcudart.so.12"
    library.parent.mkdir(parents=True)
    (folder / "cudart.c").write_text(CUDART)
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(folder / "cudart.c")]
    subprocess.run(command, check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def system(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runtime as the system's, under each name: before a CUDA that is installed here."""
    folder = tmp_path_factory.mktemp("system")
    for name in ("libcudart.so", "libcudart.so.13", "libcudart.so.12"):
        (folder / name).symlink_to(packages / "nvidia/cuda_runtime/lib/libcudart.so.12")
    return folder


def build(kit: Path, packages: Path, system: Path, cache: Path) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, str(kit / "build_engine.py"), str(kit), f"--cache={cache}"],
        env=os.environ | {"PYTHONPATH": str(packages), "LD_LIBRARY_PATH": str(system)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def events_of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [one for one in events if one["event"] == name]


def test_the_runtime_in_a_wheel_is_found(packages: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(packages=str(packages))],
        env=os.environ | {"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["8.9", str(6 << 30)]


def test_a_kit_for_this_gpu_is_built_in_place_and_goes_on_to_the_comparison(
    tmp_path: Path, kits: SimpleNamespace, packages: Path, system: Path
) -> None:
    kit = kits.write_kit(tmp_path / "kit", sm="8.9")
    _, events = build(kit, packages, system, tmp_path / "cache")
    (toolchain,) = events_of(events, "tensorrt")
    assert (toolchain["sm"], toolchain["way"]) == ("8.9", "python")
    (memory,) = events_of(events, "memory")
    assert memory["workspace_mib"] == 6 * 1024 // 4
    engines = [one for one in events_of(events, "engine") if one["state"] == "built"]
    assert [one["graph"] for one in engines] == ["fp16", "int8"]
    # nothing computes behind the stand-in: the golden pack is not matched, so nothing serves
    assert {one["graph"] for one in events_of(events, "failure")} == {"fp16", "int8"}
    assert events[-1]["recommended"] is None
    assert not list((tmp_path / "cache").glob("*/*.plan"))


def test_a_kit_for_a_jetson_is_refused_on_another_gpu(
    tmp_path: Path, kits: SimpleNamespace, packages: Path, system: Path
) -> None:
    kit = kits.write_kit(tmp_path / "kit")
    status, events = build(kit, packages, system, tmp_path / "cache")
    assert status != 0
    assert events[-1]["outcome"] == "incompatible"
    assert "for a GPU of SM 8.7" in events[-1]["message"]
    assert "here is SM 8.9" in events[-1]["message"]
