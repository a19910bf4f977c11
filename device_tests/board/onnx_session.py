"""A .onnx file in ONNX Runtime's CPU provider."""

from typing import Dict, Optional, Tuple

import numpy as np

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.packages import Vendor
from edgeship.device_tests.board.stopped import Stopped, first_line, says_out_of_memory

_ERRORS_ONLY = 3
"""ORT_LOGGING_LEVEL_ERROR."""
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxSession:
    """See `Loaded.open`; with the default graph optimisations, as an application gets it."""

    def __init__(self, vendor: Vendor, artifact: Artifact, threads: int) -> None:
        options = vendor.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = vendor.InferenceSession(
                artifact.model, options, providers=["CPUExecutionProvider"]
            )
        except MemoryError:
            raise
        except Exception as error:  # its exceptions have no common base
            outcome = "out-of-memory" if says_out_of_memory(str(error)) else "refused"
            raise Stopped(outcome, first_line(str(error))) from error
        self._names = [value.name for value in self._session.get_outputs()]
        self.inputs: Dict[str, Tuple[Tuple[int, ...], str]] = {
            value.name: (tuple(value.shape), _TYPES.get(value.type, value.type))
            for value in self._session.get_inputs()
        }

    def run(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Every output."""
        return dict(zip(self._names, self._session.run(self._names, inputs)))

    def answer(
        self, inputs: Dict[str, np.ndarray], _wanted: Dict[str, Tuple[int, ...]]
    ) -> Dict[str, np.ndarray]:
        """As `run`."""
        return self.run(inputs)

    def peak_bytes(self) -> Optional[int]:
        """None: it runs in this process."""
        return None

    def close(self) -> None:
        """Nothing: it goes with this object."""
