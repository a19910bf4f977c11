"""A .onnx file in ONNX Runtime's CPU provider."""

from typing import Dict, Tuple

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.packages import Vendor
from edgeship.device_tests.board.session import Session, Tensors, refused

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


class OnnxSession(Session):
    """See `Session`; with the default graph optimisations, as an application gets it."""

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
            raise refused(error) from error
        self._names = [value.name for value in self._session.get_outputs()]
        self.inputs: Dict[str, Tuple[Tuple[int, ...], str]] = {
            value.name: (tuple(value.shape), _TYPES.get(value.type, value.type))
            for value in self._session.get_inputs()
        }

    def run(self, inputs: Tensors) -> Tensors:
        """Every output."""
        return dict(zip(self._names, self._session.run(self._names, inputs)))
