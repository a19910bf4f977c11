"""Runtimes: which ones a board may have, and how each opens an artifact."""

import importlib
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional, Tuple

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.packages import Vendor, import_package, require_numpy, version_of
from edgeship.device_tests.board.stopped import Stopped

if TYPE_CHECKING:  # it needs numpy, and a board without one is told so
    from edgeship.device_tests.board.session import Session

Kind = NamedTuple("Kind", [("package", str), ("module", str), ("opens", str), ("suffix", str)])
"""Distribution as pip calls it; module that is imported; "module:class" here whose instances are
sessions; end of the files that it loads."""

_HERE = "edgeship.device_tests.board."
KINDS: Dict[str, Kind] = {
    "litert": Kind(
        "ai-edge-litert",
        "ai_edge_litert.interpreter",
        _HERE + "tflite_session:TfliteSession",
        ".tflite",
    ),
    "tflite_runtime": Kind(
        "tflite-runtime",
        "tflite_runtime.interpreter",
        _HERE + "tflite_session:TfliteSession",
        ".tflite",
    ),
    "onnxruntime": Kind("onnxruntime", "onnxruntime", _HERE + "onnx_session:OnnxSession", ".onnx"),
    "llama.cpp": Kind(
        "llama-cpp-python",
        "llama_cpp.llama_cpp",
        _HERE + "llama_session:LlamaSession",
        ".gguf",
    ),
    "tensorrt": Kind("tensorrt", "tensorrt", _HERE + "tensorrt_session:open_engine", ".onnx"),
}
"""By the names that manifests use."""

PROGRAM = Kind("llama.cpp", "", _HERE + "llama_server:ServerSession", ".gguf")
"""llama-server: llama.cpp as a program."""


class Loaded:
    """A runtime that was imported, or a program that was found.

    Attributes:
        name: As manifests call it.
        package: Distribution or program.
        kind: "python" or "program".
        version: None where nobody says it.
    """

    def __init__(self, name: str, row: Kind, vendor: Vendor, program: Optional[str]) -> None:
        self._row = row
        self._vendor = vendor
        self._program = program
        self.name = name
        self.package = row.package
        self.kind = "python" if program is None else "program"
        self.version: Optional[str] = None
        if program is None:
            self.version = version_of(row.package, vendor)

    def open(self, artifact: Artifact, threads: int) -> "Session":
        """Load the file of an artifact.

        Raises:
            Stopped: "refused": the runtime does not load the file.
        """
        if not artifact.model.endswith(self._row.suffix):
            message = "{} loads no {}".format(self.package, artifact.model.rpartition("/")[2])
            raise Stopped("refused", message)
        module, _, attribute = self._row.opens.partition(":")
        opener = getattr(importlib.import_module(module), attribute)
        vendor = self._vendor if self._program is None else self._program
        session: "Session" = opener(vendor, artifact, threads)
        return session


def load_runtime(name: str, program: Optional[str] = None) -> Loaded:
    """Import a runtime and what it needs, and nothing else: what is measured before and after.

    Raises:
        Stopped: "no-numpy", "wrong-numpy", "no-runtime".
    """
    require_numpy()
    if program is not None and name == "llama.cpp":
        from edgeship.device_tests.board.llama_program import program_version

        loaded = Loaded(name, PROGRAM, None, program)
        loaded.version = program_version(program)
        return loaded
    if name == "tensorrt":  # its program is the record of an engine, which says what runs it
        from edgeship.device_tests.board.tensorrt_session import engine_runner

        loaded = Loaded(name, KINDS[name], None, program)
        loaded.kind, loaded.version = engine_runner(program)
        return loaded
    row = KINDS[name]
    _prepare(name)
    return Loaded(name, row, import_package(row.module, row.package), None)


def misfit(
    inputs: Dict[str, Any], declared: Optional[Dict[str, Tuple[Tuple[int, ...], str]]]
) -> Optional[str]:
    """What is wrong with inputs for a file that declares its own; None where they fit."""
    if declared is None:
        return None
    for name in sorted(set(inputs) | set(declared)):
        if name not in declared:
            return "the file has no input {!r}: it has {}".format(name, ", ".join(declared))
        if name not in inputs:
            return f"nothing is given for the input {name!r} of the file"
        shape, dtype = declared[name]
        given = inputs[name]
        if (tuple(given.shape), given.dtype.name) != (shape, dtype):
            wanted, found = f"{dtype}{list(shape)}", f"{given.dtype.name}{list(given.shape)}"
            return f"the input {name!r} of the file is {wanted}, and {found} is given"
    return None


def _prepare(name: str) -> None:
    """What has to be so before an import."""
    if name == "onnxruntime":
        import os

        # since 1.31 its Linux wheel opens a telemetry session when it is imported
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
