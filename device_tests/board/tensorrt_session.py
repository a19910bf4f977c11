"""A TensorRT engine that was built on this board, in TensorRT's Python package or in trtexec."""

from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.packages import Vendor, import_package, is_there
from edgeship.device_tests.board.session import Session, Tensors
from edgeship.device_tests.board.stopped import Stopped
from edgeship.device_tests.board.tensorrt_cuda import Cuda, load_library
from edgeship.device_tests.board.tensorrt_engine import (
    Engine,
    find_record,
    integer_inputs,
    leading_numbers,
    read_engine,
)
from edgeship.device_tests.board.tensorrt_program import TrtexecSession

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""numpy's names of TensorRT's DataType."""


class Binding(NamedTuple):
    """An input or output of an engine, with its memory on the GPU."""

    name: str
    is_input: bool
    shape: Tuple[int, ...]
    dtype: str
    address: int


def engine_runner(record: Optional[str]) -> Tuple[str, Optional[str]]:
    """Kind, "python" or "program", and version of what runs the engine of a record.

    The Python package is imported, where it is that. Without a record, and without the package,
    nobody knows yet.
    """
    engine = read_engine(record) if record is not None else None
    if engine is not None and engine.trtexec is not None:
        return "program", ".".join(str(part) for part in engine.version)
    if engine is None and not is_there("tensorrt"):
        return "program", None
    package = import_package("tensorrt", "tensorrt")
    return "python", str(package.__version__)


def open_engine(record: Optional[str], artifact: Artifact, _threads: int) -> Session:
    """A session of the engine of a record, or of the one that build_engine.py recommended here.

    Raises:
        Stopped: "no-runtime": no engine, no TensorRT; "refused", "damaged": an engine of another
            kit, TensorRT or GPU, or not the file that was built.
    """
    engine = read_engine(record if record is not None else find_record(artifact))
    engine.require_of(artifact)
    if engine.trtexec is not None:
        return TrtexecSession(engine, artifact)
    package = import_package("tensorrt", "tensorrt")
    return EngineSession(package, Cuda(load_library()), engine, artifact)


class EngineSession(Session):
    """See `Session`: copies in, execution, copies out, on one stream."""

    def __init__(self, vendor: Vendor, cuda: Cuda, engine: Engine, artifact: Artifact) -> None:
        _require_system(vendor, cuda, engine)
        self._cuda = cuda
        logger = vendor.Logger(vendor.Logger.WARNING)
        runtime = vendor.Runtime(logger)
        with open(engine.path, "rb") as file:
            loaded = runtime.deserialize_cuda_engine(file.read())
        if loaded is None:
            raise Stopped("refused", f"TensorRT does not load {engine.path}: its messages say why")
        context = loaded.create_execution_context()
        if context is None:
            raise Stopped("out-of-memory", "TensorRT gives no execution context for the engine")
        self._kept = (logger, runtime, loaded)  # in the order in which they need each other
        self._context = context
        self._is_named = hasattr(loaded, "num_io_tensors")
        self._bindings = self._named(vendor, loaded) if self._is_named else self._numbered(loaded)
        self._integers = integer_inputs(engine.version, artifact)
        self.inputs = {
            one.name: (one.shape, "int64" if one.name in self._integers else one.dtype)
            for one in self._bindings
            if one.is_input
        }

    def run(self, inputs: Tensors) -> Tensors:
        """Every output."""
        kept, outputs = [], {}
        for one in self._bindings:
            if one.is_input:
                values = np.ascontiguousarray(inputs[one.name], np.dtype(one.dtype))
                kept.append(values)  # until the copy is done
                self._cuda.copy_to(one.address, values)
            else:
                outputs[one.name] = np.empty(one.shape, np.dtype(one.dtype))
        if not self._execute():
            raise Stopped("failed", "TensorRT could not execute the engine: its messages say why")
        for one in self._bindings:
            if not one.is_input:
                self._cuda.copy_from(one.address, outputs[one.name])
        self._cuda.wait()
        return outputs

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._cuda.close()

    def _execute(self) -> bool:
        if self._is_named:
            return bool(self._context.execute_async_v3(self._cuda.stream))
        addresses = [one.address for one in self._bindings]
        return bool(self._context.execute_async_v2(addresses, self._cuda.stream))

    def _named(self, vendor: Vendor, loaded: Any) -> List[Binding]:  # noqa: ANN401 - ICudaEngine
        """From 8.5 on: tensors have names alone, and addresses are set once."""
        bindings = []
        for index in range(loaded.num_io_tensors):
            name = loaded.get_tensor_name(index)
            one = self._binding(
                name,
                loaded.get_tensor_mode(name) == vendor.TensorIOMode.INPUT,
                loaded.get_tensor_shape(name),
                loaded.get_tensor_dtype(name),
            )
            self._context.set_tensor_address(name, one.address)
            bindings.append(one)
        return bindings

    def _numbered(self, loaded: Any) -> List[Binding]:  # noqa: ANN401 - ICudaEngine
        """Before 8.5: addresses go in the order of the bindings, with each execution."""
        return [
            self._binding(
                loaded.get_binding_name(index),
                loaded.binding_is_input(index),
                loaded.get_binding_shape(index),
                loaded.get_binding_dtype(index),
            )
            for index in range(loaded.num_bindings)
        ]

    def _binding(self, name: str, is_input: bool, dims: Any, dtype: Any) -> Binding:  # noqa: ANN401
        shape = tuple(int(size) for size in dims)
        if dtype.name not in _TYPES or min(shape, default=1) < 0:
            message = f"the engine's {name!r} is {dtype.name}{list(shape)}"
            raise Stopped("refused", message + ", which this archive does not run")
        kind = np.dtype(_TYPES[dtype.name])
        count = 1
        for size in shape:
            count *= size
        address = self._cuda.allocate(count * kind.itemsize)
        return Binding(name, is_input, shape, kind.name, address)


def _require_system(vendor: Vendor, cuda: Cuda, engine: Engine) -> None:
    """The TensorRT and the GPU that an engine was built with."""
    here = leading_numbers(str(vendor.__version__))
    if here != engine.version:
        built, found = (".".join(str(part) for part in one) for one in (engine.version, here))
        message = f"the engine was built by TensorRT {built}, and here is {found}: build it again"
        raise Stopped("refused", message)
    if cuda.capability() != engine.sm:
        message = "the engine was built for SM {}, and this GPU has {}: build it here"
        raise Stopped("refused", message.format(engine.sm, cuda.capability()))
