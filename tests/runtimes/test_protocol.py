import subprocess
import sys
from importlib.metadata import version

import pytest

from edgeship.errors import UnknownName
from edgeship.runtimes.protocol import (
    RUNTIMES,
    installed_version,
    load_observer,
    load_runtime,
    runtime_package,
)
from edgeship.targets.target import Runtime as RuntimeName


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_of_the_table_loads(name: str) -> None:
    runtime = load_runtime(name)
    assert callable(runtime.open)
    assert callable(runtime.version)


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_table_knows_which_runtimes_observe(name: str) -> None:
    assert hasattr(load_runtime(name), "observe") is RUNTIMES[name].is_observer


@pytest.mark.parametrize("name", [name for name, item in RUNTIMES.items() if item.is_observer])
def test_every_observer_of_the_table_loads(name: str) -> None:
    assert callable(load_observer(name).observe)


def test_a_runtime_that_shows_no_tensors_is_no_observer() -> None:
    with pytest.raises(UnknownName, match=r"onnxruntime, litert") as caught:
        load_observer("tflite_runtime")
    assert "tflite_runtime" not in caught.value.choices


def test_a_runtime_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnknownName, match="litert"):
        load_runtime("ncnn")
    with pytest.raises(UnknownName, match="tflite_runtime"):
        runtime_package("tflite")


@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
def test_the_version_is_that_of_the_package(name: str) -> None:
    assert load_runtime(name).version() == version(runtime_package(name))


def test_a_package_that_is_absent_has_no_version() -> None:
    assert installed_version("no-such-distribution") is None


def test_the_names_are_those_of_the_targets() -> None:
    assert set(RUNTIMES) <= set(RuntimeName)


def test_loading_a_runtime_imports_no_vendor_package() -> None:
    code = (
        "import sys\n"
        "from edgeship.runtimes.protocol import RUNTIMES, load_runtime\n"
        "for name in RUNTIMES: load_runtime(name)\n"
        "load_runtime('litert').version()\n"
        "print(*{'numpy', 'onnxruntime', 'onnx', 'ai_edge_litert', 'tflite_runtime'}"
        " & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
