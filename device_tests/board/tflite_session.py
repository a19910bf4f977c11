"""A .tflite file in LiteRT or TFLite Runtime, which have one interface."""

from typing import Any, Dict, Tuple

import numpy as np

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.packages import Vendor
from edgeship.device_tests.board.session import Session, Tensors, refused


class TfliteSession(Session):
    """See `Session`. Tensors go by the names of the file's signature, where it has one."""

    def __init__(self, vendor: Vendor, artifact: Artifact, threads: int) -> None:
        try:
            self._interpreter = vendor.Interpreter(model_path=artifact.model, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise refused(error) from error
        inputs, outputs = self._signature()
        self._inputs = _by_name(self._interpreter.get_input_details(), inputs)
        self._outputs = _by_name(self._interpreter.get_output_details(), outputs)
        self.inputs: Dict[str, Tuple[Tuple[int, ...], str]] = {
            name: (tuple(int(size) for size in item["shape"]), np.dtype(item["dtype"]).name)
            for name, item in self._inputs.items()
        }

    def run(self, inputs: Tensors) -> Tensors:
        """Every output; the arrays are copies."""
        for name, item in self._inputs.items():
            self._interpreter.set_tensor(item["index"], inputs[name])
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(item["index"])
            for name, item in self._outputs.items()
        }

    def _signature(self) -> Tuple[Dict[int, str], Dict[int, str]]:
        """Names by index of inputs and outputs.

        Old releases show no details of a signature: there the tensors' own names are left.
        """
        interpreter = self._interpreter
        if not getattr(interpreter, "get_signature_list", dict)():
            return {}, {}
        runner = interpreter.get_signature_runner()
        if not hasattr(runner, "get_input_details"):
            return {}, {}
        inputs = {int(item["index"]): name for name, item in runner.get_input_details().items()}
        outputs = {int(item["index"]): name for name, item in runner.get_output_details().items()}
        return inputs, outputs


def _by_name(details: Vendor, names: Dict[int, str]) -> Dict[str, Any]:
    return {names.get(int(item["index"]), str(item["name"])): item for item in details}
