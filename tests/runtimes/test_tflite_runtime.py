import gc
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from edgeship.errors import ExportFailed, RequirementMissing
from edgeship.runtimes.protocol import TFLITE_RUNTIME_VARIABLE as VARIABLE
from edgeship.runtimes.tflite_runtime import TfliteRuntime, TfliteSession

LITERT: Final = "from ai_edge_litert.interpreter import Interpreter\n"
"""The same interface from this environment: the pipe is tested where TFLite Runtime is not."""

IMAGE: Final = np.random.default_rng(0).standard_normal((1, 5, 5, 2)).astype(np.float32)


def write_python(directory: Path, interpreter: str) -> Path:
    """A Python in which `tflite_runtime.interpreter` is this source, in version 2.14.0."""
    package = directory / "site/tflite_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(textwrap.dedent(interpreter))
    information = directory / "site/tflite_runtime-2.14.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: tflite-runtime\nVersion: 2.14.0\n")
    start = directory / "start.py"
    start.write_text(
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(directory / 'site')!r})\n"
        "sys.argv = [item for item in sys.argv[1:] if item != '-I']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{start}" "$@"\n')
    python.chmod(0o755)
    return python


def name_python(monkeypatch: pytest.MonkeyPatch, directory: Path, interpreter: str) -> None:
    monkeypatch.setenv(VARIABLE, str(write_python(directory, interpreter)))


def real_python() -> Path:
    """The Python with TFLite Runtime itself, which `make fixtures` makes."""
    path = os.environ.get(VARIABLE) or Path(__file__).parents[2] / ".cache/tflite/bin/python"
    return Path(path)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[TfliteRuntime]:
    if not real_python().exists():
        pytest.skip(f"no TFLite Runtime: `make fixtures` makes one, or {VARIABLE} names one")
    monkeypatch.setenv(VARIABLE, str(real_python()))
    yield TfliteRuntime()
    gc.collect()


def expected_logits(net: Any) -> np.ndarray:  # noqa: ANN401 - conftest's
    with torch.no_grad():
        values = net.tensors(torch.tensor(IMAGE).permute(0, 3, 1, 2))["logits"]
    logits: np.ndarray = values.numpy()
    return logits


def test_a_session_gives_what_torch_does(net: Any, net_file: Path, real: TfliteRuntime) -> None:  # noqa: ANN401
    session = real.open(net_file)
    for _ in range(2):
        found = session.run({"image": IMAGE})
        np.testing.assert_allclose(found["logits"], expected_logits(net), rtol=1e-5, atol=1e-6)
    session.close()


def test_it_says_its_own_version(real: TfliteRuntime) -> None:
    assert str(real.version()).startswith("2.")


def test_an_operator_that_is_too_new_is_refused_with_its_version(
    too_new: Path, real: TfliteRuntime
) -> None:
    expected = r"new\.tflite: TFLite Runtime \S+ has no version 99 of the operator RELU;"
    with pytest.raises(ExportFailed, match=expected):
        real.open(too_new)


def test_garbage_is_refused_by_name(tmp_path: Path, real: TfliteRuntime) -> None:
    (tmp_path / "garbage.tflite").write_bytes(b"hello world")
    with pytest.raises(ExportFailed, match=r"garbage\.tflite: TFLite Runtime"):
        real.open(tmp_path / "garbage.tflite")


def test_the_pipe_carries_what_the_interpreter_gives(
    net: Any,  # noqa: ANN401 - conftest's
    net_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name_python(monkeypatch, tmp_path, LITERT)
    assert TfliteRuntime().version() == "2.14.0"
    session = TfliteRuntime().open(net_file)
    view = np.ascontiguousarray(IMAGE.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    found = [session.run({"image": values})["logits"] for values in (IMAGE, view)]
    session.close()
    np.testing.assert_allclose(found[0], expected_logits(net), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[1], found[0])
    assert found[0].flags.writeable


def test_outputs_have_the_signatures_names_in_the_files_order(
    two_outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_python(monkeypatch, tmp_path, LITERT)
    values = np.array([[-2.0, -1.0, 0.5, 3.0]], np.float32)
    found = TfliteRuntime().open(two_outputs).run({"x": values})
    assert list(found) == ["z", "a"]
    np.testing.assert_array_equal(found["z"], -values)


def test_a_file_is_found_from_a_relative_path(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_python(monkeypatch, tmp_path, LITERT)
    monkeypatch.chdir(net_file.parent)
    assert set(TfliteRuntime().open(Path(net_file.name)).run({"image": IMAGE})) == {"logits"}


def test_inputs_that_do_not_fit_are_one_clear_error(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_python(monkeypatch, tmp_path, LITERT)
    session = TfliteRuntime().open(net_file)
    with pytest.raises(ExportFailed, match=r"expected image float32\[1, 5, 5, 2\], found image"):
        session.run({"image": IMAGE.astype(np.float64)})
    assert set(session.run({"image": IMAGE})) == {"logits"}  # the child never saw them


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGILL", "SIGABRT"])
def test_a_crash_is_named_with_the_last_line_of_stderr(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    interpreter = f"""
        import os, signal, sys
        class Interpreter:
            def __init__(self, model_path, num_threads):
                print("first", file=sys.stderr)
                print("conv.cc:12 stride is zero", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.{name})
        """
    name_python(monkeypatch, tmp_path, interpreter)
    expected = rf"TFLite Runtime 2\.14\.0 crashed with {name}: found conv\.cc:12 stride is zero"
    with pytest.raises(ExportFailed, match=expected):
        TfliteRuntime().open(net_file)


def test_a_crash_in_a_run_is_one_too(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = """
        import os, signal
        from ai_edge_litert.interpreter import Interpreter as Real

        class Interpreter(Real):
            def invoke(self):
                os.kill(os.getpid(), signal.SIGSEGV)
        """
    name_python(monkeypatch, tmp_path, interpreter)
    session = TfliteRuntime().open(net_file)
    with pytest.raises(ExportFailed, match="crashed with SIGSEGV: found no message"):
        session.run({"image": IMAGE})


def test_a_child_that_leaves_is_named_with_its_status(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_python(monkeypatch, tmp_path, "import os\nos._exit(7)")
    with pytest.raises(ExportFailed, match="ended with status 7: found no message"):
        TfliteRuntime().open(net_file)


def test_what_the_runtime_prints_does_not_break_the_frames(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = """
        import os
        from ai_edge_litert.interpreter import Interpreter as Real

        class Interpreter(Real):
            def invoke(self):
                os.write(1, b"chatter" * 100)
                print("more of it", flush=True)
                super().invoke()
        """
    name_python(monkeypatch, tmp_path, interpreter)
    session = TfliteRuntime().open(net_file)
    assert session.run({"image": IMAGE})["logits"].shape == (1, 4)


def test_a_child_that_gives_no_answer_is_ended(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = """
        import signal
        class Interpreter:
            def __init__(self, model_path, num_threads):
                signal.pause()
        """
    name_python(monkeypatch, tmp_path, interpreter)
    monkeypatch.setattr("edgeship.runtimes.tflite_runtime._ANSWER_S", 0.2)
    with pytest.raises(ExportFailed, match="gave no answer in"):
        TfliteRuntime().open(net_file)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def open_session(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TfliteSession, int]:
    name_python(monkeypatch, tmp_path, LITERT)
    session = TfliteRuntime().open(net_file)
    pid = session._process.pid
    assert is_running(pid)
    return session, pid


def test_closing_ends_and_reaps_the_child(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, pid = open_session(net_file, tmp_path, monkeypatch)
    session.close()
    assert not is_running(pid)
    session.close()  # once more changes nothing


def test_a_session_that_is_dropped_ends_its_child(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, pid = open_session(net_file, tmp_path, monkeypatch)
    del session
    gc.collect()
    assert not is_running(pid)


@pytest.mark.parametrize("python", [None, "/no/such/python", sys.executable])
def test_without_the_runtime_there_is_no_version_and_opening_says_how_to_make_one(
    net_file: Path, monkeypatch: pytest.MonkeyPatch, python: str | None
) -> None:
    if python is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, python)
    assert TfliteRuntime().version() is None
    with pytest.raises(RequirementMissing, match=r"tflite-runtime==2\.14\.0.*numpy<2") as caught:
        TfliteRuntime().open(net_file)
    assert int(caught.value.exit_code) == 8
    assert VARIABLE in str(caught.value)


def test_a_runtime_that_cannot_be_imported_is_missing(
    net_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_python(monkeypatch, tmp_path, 'raise ImportError("numpy 2 is too new")')
    with pytest.raises(RequirementMissing, match="numpy 2 is too new"):
        TfliteRuntime().open(net_file)
