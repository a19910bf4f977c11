"""What a runtime can do for the rest of the house, and which ones there are."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgeship.errors import UnknownName

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


class Session(Protocol):
    """A loaded file."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name, for inputs by name with the contract's shapes and dtypes."""
        ...


class Runtime(Protocol):
    """Runs files of one kind on this host."""

    def version(self) -> str | None:
        """Version of the package that would run a file; None where this host has none."""
        ...

    def open(self, file: Path, *, threads: int = 1) -> Session:
        """Load a file as an application would; raises ExportFailed if the runtime refuses it.

        Raises:
            RequirementMissing: This host has no such runtime.
        """
        ...


class Observer(Protocol):
    """A runtime that shows what is inside of a float file."""

    def observe(self, file: Path, names: Sequence[str]) -> AbstractContextManager[Session]:
        """A session that yields the tensors `names` inside of a float file; inputs are left out."""
        ...


@dataclass(frozen=True, kw_only=True)
class RuntimeEntry:
    """One runtime, by name alone: importing its module imports no vendor package.

    Attributes:
        implementation: "module:class".
        package: Distribution that holds it.
        is_observer: Whether the class is an `Observer` too.
        remedy: How this host gets it.
    """

    implementation: str
    package: str
    is_observer: bool
    remedy: str


TFLITE_RUNTIME_VARIABLE: Final = "EDGESHIP_TFLITE_RUNTIME"
"""Environment variable with the path of the Python that has tflite_runtime."""

RUNTIMES: Final[Mapping[str, RuntimeEntry]] = {
    "onnxruntime": RuntimeEntry(
        implementation="edgeship.runtimes.ort:OrtRuntime",
        package="onnxruntime",
        is_observer=True,
        remedy="pip install 'edgeship[onnx]'",
    ),
    "litert": RuntimeEntry(
        implementation="edgeship.runtimes.litert:LiteRtRuntime",
        package="ai-edge-litert",
        is_observer=True,
        remedy="pip install 'edgeship[tflite]'",
    ),
    "tflite_runtime": RuntimeEntry(
        implementation="edgeship.runtimes.tflite_runtime:TfliteRuntime",
        package="tflite-runtime",
        is_observer=False,
        remedy="python3.11 -m venv DIR && DIR/bin/pip install 'tflite-runtime==2.14.0' 'numpy<2', "
        f"then set {TFLITE_RUNTIME_VARIABLE}=DIR/bin/python",
    ),
    "llama.cpp": RuntimeEntry(
        implementation="edgeship.runtimes.llama:LlamaRuntime",
        package="llama-cpp-python",
        is_observer=False,
        remedy="pip install 'edgeship[gguf]'",
    ),
    "tensorrt": RuntimeEntry(
        implementation="edgeship.runtimes.tensorrt:TensorRtRuntime",
        package="tensorrt",
        is_observer=False,
        remedy="build the engine on the board: run build_engine.py of the kit there",
    ),
}
"""By the names that manifests use."""


def load_runtime(name: str) -> Runtime:
    """The runtime of that name; raises UnknownName."""
    runtime: Runtime = _make(_entry(name))
    return runtime


def load_observer(name: str) -> Observer:
    """The runtime of that name, for observing; raises UnknownName where it cannot."""
    entry = _entry(name)
    if not entry.is_observer:
        choices = [key for key, item in RUNTIMES.items() if item.is_observer]
        raise UnknownName(
            kind="runtime that observes tensors", name=name, choices=choices, where="runtimes"
        )
    observer: Observer = _make(entry)
    return observer


def runtime_package(name: str) -> str:
    """Distribution of the runtime of that name, as pip calls it; raises UnknownName."""
    return _entry(name).package


def installed_version(package: str) -> str | None:
    """Version of a distribution in this environment; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _entry(name: str) -> RuntimeEntry:
    if name not in RUNTIMES:
        raise UnknownName(kind="runtime", name=name, choices=RUNTIMES, where="runtimes")
    return RUNTIMES[name]


def _make(entry: RuntimeEntry) -> Any:  # noqa: ANN401 - the table says which protocols it has
    module, _, attribute = entry.implementation.partition(":")
    return getattr(importlib.import_module(module), attribute)()
