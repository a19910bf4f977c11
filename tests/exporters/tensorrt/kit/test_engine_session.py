# ruff: noqa: ANN401 - vendor modules and JSON have no types
import ctypes
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.stopped import Stopped
from edgeship.device_tests.board.tensorrt_cuda import Cuda
from edgeship.device_tests.board.tensorrt_engine import find_record, read_engine
from edgeship.device_tests.board.tensorrt_program import outputs_from_text
from edgeship.device_tests.board.tensorrt_session import EngineSession

DATA = Path(__file__).parent / "data"
DUMPS = sorted(path.stem.removeprefix("tensorrt_") for path in DATA.glob("tensorrt_*.json"))
WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)
PLAN = b"a plan"


class HostMemory:
    """libcudart of a machine whose GPU is this process; addresses are real."""

    def __init__(self, capability: tuple[int, int] = (8, 7), *, limit: int = 1 << 20) -> None:
        self.held: dict[int, Any] = {}
        self.cudaGetErrorString = lambda _status: b"out of memory"  # a function of C has attributes
        self._capability = dict(zip((75, 76), capability, strict=True))
        self._limit = limit

    def cudaStreamCreate(self, stream: Any) -> int:
        stream._obj.value = 7
        return 0

    def cudaStreamDestroy(self, stream: ctypes.c_void_p) -> int:
        assert stream.value == 7
        return 0

    def cudaStreamSynchronize(self, stream: ctypes.c_void_p) -> int:
        assert stream.value == 7
        return 0

    def cudaDeviceGetAttribute(self, value: Any, attribute: int, _device: int) -> int:
        value._obj.value = self._capability[attribute]
        return 0

    def cudaMalloc(self, address: Any, size: ctypes.c_size_t) -> int:
        if size.value > self._limit:
            return 2
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.held[ctypes.addressof(block)] = block
        return 0

    def cudaFree(self, address: ctypes.c_void_p) -> int:
        del self.held[int(address.value or 0)]
        return 0

    def cudaMemcpyAsync(self, target: Any, source: Any, size: Any, kind: int, _stream: Any) -> int:
        on_gpu = target if kind == 1 else source
        assert size.value <= len(self.held[on_gpu.value])
        ctypes.memmove(target.value, source.value, size.value)
        return 0


def read(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)


class Multiplying:
    """What an engine of `x @ WEIGHTS` answers; by names, or by numbers before 8.5."""

    def __init__(self, input_type: str) -> None:
        self._type = input_type
        self._addresses: dict[str, int] = {}

    def answers(self, member: Callable[[str, str], Any]) -> dict[str, Any]:
        kinds = {"x": member("DataType", self._type), "y": member("DataType", "FLOAT")}
        modes = {"x": member("TensorIOMode", "INPUT"), "y": member("TensorIOMode", "OUTPUT")}
        shapes, names = {"x": (2, 4), "y": (2, 3)}, ("x", "y")
        return {
            "ICudaEngine.num_io_tensors": 2,
            "ICudaEngine.get_tensor_name": lambda _this, index: names[index],
            "ICudaEngine.get_tensor_mode": lambda _this, name: modes[name],
            "ICudaEngine.get_tensor_shape": lambda _this, name: shapes[name],
            "ICudaEngine.get_tensor_dtype": lambda _this, name: kinds[name],
            "IExecutionContext.set_tensor_address": self._set_address,
            "IExecutionContext.execute_async_v3": lambda _this, stream: self._run(stream),
            "ICudaEngine.num_bindings": 2,
            "ICudaEngine.get_binding_name": lambda _this, index: names[index],
            "ICudaEngine.binding_is_input": lambda _this, index: index == 0,
            "ICudaEngine.get_binding_shape": lambda _this, index: shapes[names[index]],
            "ICudaEngine.get_binding_dtype": lambda _this, index: kinds[names[index]],
            "IExecutionContext.execute_async_v2": self._run_numbered,
        }

    def _set_address(self, _this: Any, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def _run_numbered(self, _this: Any, addresses: list[int], stream: int) -> bool:
        self._addresses = dict(zip(("x", "y"), addresses, strict=True))
        return self._run(stream)

    def _run(self, stream: int) -> bool:
        assert stream == 7
        dtype = {"FLOAT": "float32", "INT32": "int32"}[self._type]
        found = read(self._addresses["x"], (2, 4), dtype).astype(np.float32) @ WEIGHTS
        ctypes.memmove(self._addresses["y"], found.tobytes(), found.nbytes)
        return True


def vendor_of(
    fake: SimpleNamespace, dump: str, version: str | None = None, *, kind: str = "FLOAT"
) -> Any:
    snapshot = json.loads((DATA / f"tensorrt_{dump}.json").read_text())
    if version is not None:  # before 8.5: what came with names is not there
        engine = snapshot["classes"]["ICudaEngine"]
        del engine["properties"]["num_io_tensors"]
        for name in ("get_tensor_name", "get_tensor_mode", "get_tensor_shape", "get_tensor_dtype"):
            del engine["methods"][name]
        context = snapshot["classes"]["IExecutionContext"]["methods"]
        del context["execute_async_v3"], context["set_tensor_address"]
    plain = fake.make_module(snapshot)
    answers = Multiplying(kind).answers(lambda enum, name: getattr(getattr(plain, enum), name))
    return fake.make_module(snapshot, answers, version=version)


def write_record(directory: Path, **changes: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "fp16.plan").write_bytes(PLAN)
    record = {
        "schema": 1,
        "artifact_id": "a" * 64,
        "tensorrt": "10.3.0",
        "sm": "8.7",
        "way": "python",
        "trtexec": None,
        "file": "fp16.plan",
        "sha256": hashlib.sha256(PLAN).hexdigest(),
    }
    path = directory / "fp16.json"
    path.write_text(json.dumps(record | changes))
    return path


def artifact_of(directory: Path, dtype: str = "float32") -> Artifact:
    contract = {
        "inputs": [{"name": "x", "shape": [2, 4], "dtype": dtype}],
        "outputs": [{"name": "y", "shape": [2, 3], "dtype": "float32"}],
    }
    manifest = {"artifact_id": "a" * 64, "contract": contract, "files": []}
    return Artifact(str(directory), manifest)


X = np.random.default_rng(0).integers(-5, 5, (2, 4)).astype(np.float32)


@pytest.mark.parametrize("dump", DUMPS)
def test_an_engine_runs_through_the_calls_of_every_version(
    tmp_path: Path, fake_tensorrt: SimpleNamespace, dump: str
) -> None:
    vendor = vendor_of(fake_tensorrt, dump)
    engine = read_engine(str(write_record(tmp_path, tensorrt=vendor.__version__)))
    library = HostMemory()
    session = EngineSession(vendor, Cuda(library), engine, artifact_of(tmp_path))
    assert session.inputs == {"x": ((2, 4), "float32")}
    for scale in (1, 2):
        assert np.array_equal(session.run({"x": X * scale})["y"], X * scale @ WEIGHTS)
    session.close()
    session.close()
    assert library.held == {}


def test_before_8_5_bindings_have_numbers(tmp_path: Path, fake_tensorrt: SimpleNamespace) -> None:
    vendor = vendor_of(fake_tensorrt, "8.6.1", "8.2.1", kind="INT32")
    engine = read_engine(str(write_record(tmp_path, tensorrt="8.2.1")))
    artifact = artifact_of(tmp_path, "int64")
    session = EngineSession(vendor, Cuda(HostMemory()), engine, artifact)
    assert session.inputs == {"x": ((2, 4), "int64")}  # which TensorRT takes as INT32
    assert np.array_equal(session.run({"x": X.astype(np.int64)})["y"], X @ WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "library", "message"),
    [
        ({"tensorrt": "10.7.0"}, HostMemory(), "built by TensorRT 10.7.0, and here is 10.3.0"),
        ({}, HostMemory((7, 2)), "built for SM 8.7, and this GPU has 7.2"),
    ],
)
def test_an_engine_of_another_system_is_refused(
    tmp_path: Path,
    fake_tensorrt: SimpleNamespace,
    changes: dict[str, str],
    library: HostMemory,
    message: str,
) -> None:
    engine = read_engine(str(write_record(tmp_path, **changes)))
    vendor = vendor_of(fake_tensorrt, "10.3.0_cu12")
    with pytest.raises(Stopped, match=message) as caught:
        EngineSession(vendor, Cuda(library), engine, artifact_of(tmp_path))
    assert caught.value.outcome == "refused"


def test_the_gpu_s_memory_can_run_out(tmp_path: Path, fake_tensorrt: SimpleNamespace) -> None:
    engine = read_engine(str(write_record(tmp_path)))
    vendor = vendor_of(fake_tensorrt, "10.3.0_cu12")
    with pytest.raises(Stopped, match=r"cudaMalloc: out of memory \(2\)") as caught:
        EngineSession(vendor, Cuda(HostMemory(limit=8)), engine, artifact_of(tmp_path))
    assert caught.value.outcome == "out-of-memory"


def test_a_foreign_or_damaged_engine_is_refused(tmp_path: Path) -> None:
    artifact = artifact_of(tmp_path)
    path = write_record(tmp_path)
    read_engine(str(path)).require_of(artifact)
    (tmp_path / "fp16.plan").write_bytes(PLAN + b"x")
    with pytest.raises(Stopped, match="not the engine that was built") as caught:
        read_engine(str(path)).require_of(artifact)
    assert caught.value.outcome == "damaged"
    path = write_record(tmp_path, artifact_id="b" * 64)
    with pytest.raises(Stopped, match="built from another kit") as caught:
        read_engine(str(path)).require_of(artifact)
    assert caught.value.outcome == "refused"
    path.write_text("[]")
    with pytest.raises(Stopped, match="cannot be read"):
        read_engine(str(path))


def test_the_recommended_engine_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    artifact = artifact_of(tmp_path)
    with pytest.raises(Stopped, match=r"run build_engine\.py") as caught:
        find_record(artifact)
    assert caught.value.outcome == "no-runtime"
    entry = tmp_path / "edgeship/engines" / ("a" * 16 + "-trt10.3.0-sm8.7")
    expected = write_record(entry)
    (entry / "engine_report.json").write_text(json.dumps({"recommended": "fp16"}))
    assert find_record(artifact) == str(expected)


def test_outputs_of_trtexec_are_read_with_what_json_has_not() -> None:
    text = (
        '[\n  { "name" : "inf"\n  , "dimensions" : "2x2"\n'
        '  , "values" : [ 1.5, nan, -inf, 2e-05 ]\n  }\n'
        ', { "name" : "ids"\n  , "dimensions" : "3"\n  , "values" : [ 1, -2, 3 ]\n  }\n]\n'
    )
    found = outputs_from_text(text, {"ids": np.dtype("int32")})
    assert found["inf"].dtype == np.float32
    assert np.array_equal(
        found["inf"], np.array([[1.5, np.nan], [-np.inf, 2e-5]], np.float32), equal_nan=True
    )
    assert found["ids"].dtype == np.int32
    assert found["ids"].tolist() == [1, -2, 3]
