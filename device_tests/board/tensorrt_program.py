"""An engine in trtexec: one process for each query, so never a latency."""

import json
import os
import re
import subprocess
import tempfile
from typing import Any, Dict, List, Tuple

import numpy as np

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.ending import outcome_of
from edgeship.device_tests.board.session import Session, Tensors
from edgeship.device_tests.board.stopped import Stopped, first_line, says_out_of_memory
from edgeship.device_tests.board.tensorrt_engine import Engine, integer_inputs
from edgeship.device_tests.board.tensors import little_endian
from edgeship.device_tests.board.worker import end_with_parent

_RUN_S = 300.0
"""A choice: to load CUDA, TensorRT and an engine takes seconds, from an SD card many."""
_SEPARATORS = ":,'\""
"""`--loadInputs=name:file,name:file`."""
_TRANSFERS_OFF_BY_DEFAULT = (11,)


class TrtexecSession(Session):
    """See `Session`.

    Values come with six digits, as C++ streams write them (samples/common/sampleReporting.cpp,
    exportJSONOutput): of a float output they are off by 5e-6 of themselves at most.
    """

    is_timeable = False
    """A query here is a process that loads TensorRT."""

    def __init__(self, engine: Engine, artifact: Artifact) -> None:
        assert engine.trtexec is not None  # whoever opens it asked
        self._program = engine.trtexec
        self._engine = engine
        self._outputs = {spec["name"]: np.dtype(spec["dtype"]) for spec in artifact.outputs}
        self._integers = integer_inputs(engine.version, artifact)
        declared: Dict[str, Tuple[Tuple[int, ...], str]] = {
            spec["name"]: (tuple(spec["shape"]), spec["dtype"]) for spec in artifact.inputs
        }
        self.inputs = declared
        for name in declared:
            if any(character in name for character in _SEPARATORS):
                raise Stopped("refused", f"trtexec cannot be given an input named {name!r}")

    def run(self, inputs: Tensors) -> Tensors:
        """Every output."""
        with tempfile.TemporaryDirectory(prefix="edgeship-trtexec-") as directory:
            files = []
            for index, (name, values) in enumerate(inputs.items()):
                if name in self._integers:
                    values = values.astype(np.int32)
                with open(os.path.join(directory, f"input{index}.bin"), "wb") as file:
                    file.write(little_endian(values))
                files.append(f"{name}:input{index}.bin")
            self._call(directory, self._command(files))
            try:
                with open(os.path.join(directory, "outputs.json"), encoding="utf-8") as text:
                    return outputs_from_text(text.read(), self._outputs)
            except (OSError, ValueError, KeyError, TypeError) as error:
                message = f"the outputs of trtexec cannot be read: {error}"
                raise Stopped("failed", message) from error

    def _command(self, files: List[str]) -> List[str]:
        command = [self._program, "--loadEngine=" + os.path.abspath(self._engine.path)]
        command += ["--loadInputs=" + ",".join(files), "--exportOutput=outputs.json"]
        command += ["--iterations=1", "--warmUp=0", "--duration=0"]
        if self._engine.version >= _TRANSFERS_OFF_BY_DEFAULT:
            command.append("--includeDataTransfers")
        return command

    def _call(self, directory: str, command: List[str]) -> None:
        own = os.getpid()
        try:
            process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: end_with_parent(own),
            )
        except OSError as error:
            message = f"{self._program} cannot be started: {error.strerror}"
            raise Stopped("no-runtime", message) from error
        try:
            said = process.communicate(timeout=_RUN_S)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise Stopped("timeout", f"trtexec did not end within {_RUN_S:g} s") from error
        if process.returncode != 0 or "&&&& PASSED" not in said:
            raise _failed(process.returncode, said)


def outputs_from_text(text: str, dtypes: Dict[str, Any]) -> Tensors:
    """Read a file of `--exportOutput`: [{"name", "dimensions": "1x10", "values"}].

    Raises:
        ValueError: It is no such file.
    """
    found = {}
    for entry in json.loads(re.sub(r"(?<=[\[ ,-])(nan|inf)(?=[\] ,])", _json_name, text)):
        name = entry["name"]
        shape = [int(part) for part in entry["dimensions"].split("x") if part]
        values = np.array(entry["values"], np.float64)
        found[name] = values.astype(dtypes.get(name, np.dtype("float32"))).reshape(shape)
    return found


def _json_name(match: "re.Match[str]") -> str:
    """How Python's JSON writes what C++ writes so."""
    return "NaN" if match.group() == "nan" else "Infinity"


def _failed(status: int, said: str) -> Stopped:
    errors = [line for line in said.splitlines() if "[E]" in line]
    message = "trtexec: " + first_line("\n".join(errors) or said)
    if status < 0:
        ended = outcome_of(-status, stderr=said, was_out_of_memory=False)
        return Stopped(ended[0], f"trtexec: {ended[1]}") if ended else Stopped("killed", message)
    outcome = "out-of-memory" if says_out_of_memory("\n".join(errors)) else "refused"
    return Stopped(outcome, message)
