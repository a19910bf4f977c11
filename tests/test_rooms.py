"""The order of the rooms: each module imports only its own room and rooms above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.checkout

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "src/edgeship"
ROOMS: Final = (
    "spine",
    "targets",
    "source",
    "runtimes",
    "calibration",
    "exporters",
    "evaluate",
    "device_tests",
    "tools",
    "pipeline",
    "cli",
)
VENDORS: Final = {
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "safetensors",
    "tensorrt",
    "tensorflow",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "flatbuffers",
    "litert_torch",
    "tflite_runtime",
    "gguf",
    "llama_cpp",
    "numba",
    "sentencepiece",
}

EQUALIZE: Final = "edgeship.calibration.equalize"
"""Its passes edit torch's graphs; the registry names them, and imports each when it is used."""


def modules() -> list[tuple[str, Path]]:
    files = sorted(PACKAGE.rglob("*.py"))
    for name in ROOMS[1:]:
        if (PACKAGE / name).is_symlink():
            files += sorted((PACKAGE / name).resolve().rglob("*.py"))
    found = []
    for path in dict.fromkeys(files):
        inside = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT)
        if inside.parts[:2] != ("tools", "bench"):
            found.append((".".join(("edgeship", *inside.with_suffix("").parts)), path))
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    if parts[1:] == ["__main__"]:
        return "cli"
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "spine"


def imports_of(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Absolute names of what a file imports; those under TYPE_CHECKING are not top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value))
def test_a_module_imports_only_rooms_above_it(module: str, path: Path) -> None:
    height = ROOMS.index(room_of(module))
    below = [
        name
        for name in imports_of(path)
        if name.startswith("edgeship.") and ROOMS.index(room_of(name)) > height
    ]
    assert not below


def test_the_walk_finds_modules_of_every_room() -> None:
    assert {room_of(module) for module, _ in modules()} == set(ROOMS)


def test_an_exporter_imports_no_other_exporter() -> None:
    exporters = {path.parent.name for path in (ROOT / "exporters").glob("*/__init__.py")}
    for module, path in modules():
        own = module.split(".")[2:3]
        if module.startswith("edgeship.exporters.") and exporters.intersection(own):
            used = {name.split(".")[2] for name in imports_of(path) if name.count(".") > 1}
            assert not used & exporters - set(own), module


def test_what_the_registry_names_imports_no_vendor_package_at_top_level() -> None:
    light = {
        module
        for module, _ in modules()
        if room_of(module) in {"spine", "targets", "calibration", "evaluate", "pipeline", "cli"}
        and not (module.startswith(EQUALIZE) and module != f"{EQUALIZE}.rewrite")
    } | {
        "edgeship.exporters.gguf.exporter",
        "edgeship.exporters.onnx.exporter",
        "edgeship.exporters.tensorrt.exporter",
        "edgeship.exporters.tflite.exporter",
        "edgeship.runtimes.adapter",
        "edgeship.runtimes.litert",
        "edgeship.runtimes.llama",
        "edgeship.runtimes.llama_library",
        "edgeship.runtimes.ort",
        "edgeship.runtimes.protocol",
        "edgeship.runtimes.tensorrt",
        "edgeship.runtimes.tflite_runtime",
    }
    for module, path in modules():
        if module in light:
            tops = {name.partition(".")[0] for name in imports_of(path, top_level_only=True)}
            assert not tops & VENDORS, module


def test_the_spine_needs_the_standard_library_alone() -> None:
    import sys

    for module, path in modules():
        if room_of(module) == "spine":
            tops = {name.partition(".")[0] for name in imports_of(path)}
            assert tops <= {*sys.stdlib_module_names, "edgeship"}, module
