"""ONNX Runtime on this host's CPU: run a file, or observe the tensors inside of it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.errors import ExportFailed, Problem
from edgeship.runtimes.protocol import installed_version, runtime_package

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

_ERRORS_ONLY: Final = 3
"""ORT_LOGGING_LEVEL_ERROR: what the runtime says below it is about itself."""


class OrtSession:
    """One loaded model on the CPU provider, with the default graph optimisations.

    Those are what a user's application gets, so that what is measured is what ships.
    """

    def __init__(self, file: Path, *, threads: int, content: bytes | None = None) -> None:
        self._session = _load(file, content, threads)
        self._names = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Session.run`."""
        values = self._session.run(self._names, dict(inputs))
        return dict(zip(self._names, values, strict=True))


class OrtRuntime:
    """The package `onnxruntime`."""

    def version(self) -> str | None:
        """See `Runtime.version`."""
        return installed_version(runtime_package("onnxruntime"))

    def open(self, file: Path, *, threads: int = 1) -> OrtSession:
        """See `Runtime.open`."""
        return OrtSession(file, threads=threads)

    @contextmanager
    def observe(self, file: Path, names: Sequence[str]) -> Iterator[OrtSession]:
        """See `Runtime.observe`; names of inputs are left out, since ONNX forbids input = output.

        The tensors become the outputs in place of the model's own.
        """
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # has no stubs

        try:
            proto = onnx.load(file)
        except DecodeError as error:
            raise _failed(file, error) from error
        inputs = {value.name for value in proto.graph.input}
        del proto.graph.output[:]
        proto.graph.output.extend(
            onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in inputs
        )
        content = proto.SerializeToString()
        del proto
        yield OrtSession(file, threads=1, content=content)


def import_onnxruntime() -> Any:  # noqa: ANN401 - the vendor has no types
    """The package, with its telemetry off unless the user's environment says otherwise.

    Since 1.31 its Linux wheel opens a telemetry session when it is imported, and reads this once.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _load(file: Path, content: bytes | None, threads: int) -> Any:  # noqa: ANN401 - the vendor has no types
    """A session on `content`, where it is given, else on the file."""
    onnxruntime = import_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(file) if content is None else content,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # it prints to stdout and tries the same provider again
        )
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        UnicodeDecodeError,  # a message that quotes damaged names
    ) as error:
        raise _failed(file, error) from error


def _failed(file: Path, error: Exception) -> ExportFailed:
    problem = Problem(
        where=str(file),
        what="ONNX Runtime cannot load the file",
        found=str(error).splitlines()[0][:300],
        remedy="this is a defect of the export: report the model's operators",
    )
    return ExportFailed(problem)
