"""TFLite Runtime, what boards with an older Python have, in a Python of its own.

Its last release, 2.14.0, needs numpy 1 and Python 3.11 at most, so that it shares no environment
with the exporters: each session is a child process that runs `tflite_child.py`.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from edgeship.errors import ExportFailed, Problem, RequirementMissing
from edgeship.runtimes.litert import FileTensor, named_tensors, refused, require_fit
from edgeship.runtimes.protocol import RUNTIMES, TFLITE_RUNTIME_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

_CHILD: Final = Path(__file__).with_name("tflite_child.py")
_ANSWER_S: Final = 300.0
"""A run takes milliseconds; what is silent for so long hangs."""
_END_S: Final = 5.0


class TfliteSession:
    """One file in one child process, which ends with `close`, or with this object."""

    def __init__(self, file: Path, *, python: str, version: str, threads: int) -> None:
        self._file = file
        self._title = f"TFLite Runtime {version}"
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = _start(python, self._stderr)
        self.close = weakref.finalize(self, _stop, self._process, self._stderr)
        request = {"do": "open", "file": str(file.absolute()), "threads": threads}
        answer, _ = self._ask(request, b"")
        self._inputs = _named(answer, "inputs")
        self._outputs = _named(answer, "outputs")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Session.run`.

        Raises:
            ExportFailed: Inputs of another name, shape or dtype, an operator that fails, or a
                runtime that crashes.
        """
        import numpy as np

        require_fit(self._file, self._inputs, inputs)
        content = b"".join(inputs[tensor.name].tobytes() for tensor in self._inputs)
        _, values = self._ask({"do": "run"}, content)
        outputs, offset = {}, 0
        for tensor in self._outputs:
            count = int(np.prod(tensor.shape))
            array = np.frombuffer(values, tensor.dtype, count, offset).reshape(tensor.shape)
            outputs[tensor.name] = array.copy()  # the frame itself is read-only
            offset += array.nbytes
        return outputs

    def _ask(self, header: Mapping[str, object], content: bytes) -> tuple[dict[str, Any], bytes]:
        """One request, one answer."""
        try:
            _send(self._process, header, content)
            answer, values = _receive(self._process)
        except (EOFError, BrokenPipeError, TimeoutError) as error:
            raise self._crashed(error) from error
        failed = answer.get("failed")
        if failed == "import":
            raise RequirementMissing(_missing(answer["message"]))
        if failed == "file":
            raise refused(self._file, self._title, answer["message"])
        return answer, values

    def _crashed(self, error: Exception) -> ExportFailed:
        """How the child ended, and the last that it said."""
        if isinstance(error, TimeoutError):
            self._process.kill()
            ending = f"gave no answer in {_ANSWER_S:.0f} s"
        else:
            ending = _ending(self._process.wait(_END_S))
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip() and not line.startswith("INFO: ")]
        self.close()
        problem = Problem(
            where=str(self._file),
            what=f"{self._title} {ending}",
            found=said[-1][:300] if said else "no message",
            remedy="leave that runtime off the target's list, or change the model to do without",
        )
        return ExportFailed(problem)


class TfliteRuntime:
    """The package `tflite-runtime`; it shows no inner tensors, so that it is no `Observer`."""

    def version(self) -> str | None:
        """See `Runtime.version`; asked once of each Python."""
        python = _python()
        return None if python is None else _ask_version(python)

    def open(self, file: Path, *, threads: int = 1) -> TfliteSession:
        """See `Runtime.open`."""
        python = _python()
        if python is None:
            raise RequirementMissing(_missing("no Python that has it"))
        version = _ask_version(python)
        if version is None:
            raise RequirementMissing(_missing(f"{python}, which cannot say that it has one"))
        return TfliteSession(file, python=python, version=version, threads=threads)


def _python() -> str | None:
    """The Python that has the runtime: the variable's, else this one."""
    if named := os.environ.get(TFLITE_RUNTIME_VARIABLE):
        return named
    return sys.executable if importlib.util.find_spec("tflite_runtime") else None


@functools.cache
def _ask_version(python: str) -> str | None:
    try:
        done = subprocess.run(
            [python, "-I", str(_CHILD), "--version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _start(python: str, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [python, "-I", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


def _stop(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    """End the child, which leaves when its stdin ends, and reap it."""
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    stderr.close()


def _send(process: subprocess.Popen[bytes], header: Mapping[str, object], content: bytes) -> None:
    assert process.stdin is not None  # a pipe
    encoded = json.dumps({**header, "bytes": len(content)}).encode()
    process.stdin.write(struct.pack("<I", len(encoded)) + encoded)
    process.stdin.write(content)
    process.stdin.flush()


def _receive(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], bytes]:
    """The answer to the one request that is open."""
    assert process.stdout is not None  # a pipe
    if not select.select([process.stdout], [], [], _ANSWER_S)[0]:
        raise TimeoutError
    (length,) = struct.unpack("<I", _read(process.stdout, 4))
    header: dict[str, Any] = json.loads(_read(process.stdout, length))
    return header, _read(process.stdout, header["bytes"])


def _read(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def _named(answer: Mapping[str, Any], side: str) -> list[FileTensor]:
    tensors = [
        FileTensor(name=name, index=index, shape=tuple(shape), dtype=dtype)
        for name, index, shape, dtype in answer[side]
    ]
    return named_tensors(tensors, answer["signature"][side])


def _ending(status: int) -> str:
    """How a process ended, from what `wait` gives: "crashed with SIGSEGV"."""
    if status >= 0:
        return f"ended with status {status}"
    return f"crashed with {signal.Signals(-status).name}"


def _missing(found: str) -> Problem:
    return Problem(
        where="tflite_runtime",
        what="this host cannot run TFLite Runtime",
        expected=f"a Python with it, named by {TFLITE_RUNTIME_VARIABLE}",
        found=found,
        remedy=RUNTIMES["tflite_runtime"].remedy,
    )
