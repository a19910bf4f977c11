import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from edgeship.artifact import Artifact
from edgeship.device_tests.board_archive import ARCHIVE_NAME

DEADLINE_S: Final = 60
INTERFACE: Final = """
__version__ = "9"
class SessionOptions:
    def add_session_config_entry(self, *pair): pass
class InferenceSession:
    def __init__(self, *given, **named):
        {}
"""
"""Of onnxruntime, as far as it is called before a session is there."""


def write_module(directory: Path, name: str, source: str) -> dict[str, str]:
    """An environment in which that package is this source."""
    (directory / name).mkdir(parents=True)
    (directory / name / "__init__.py").write_text(source)
    return {"PYTHONPATH": str(directory)}


@contextmanager
def started(
    archive: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    flags: tuple[str, ...] = (),
    prepare: Callable[[], None] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    assert archive.name == ARCHIVE_NAME
    process = subprocess.Popen(
        [sys.executable, *flags, str(archive), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        preexec_fn=prepare,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], int, str]:
    """Last event, exit status and stderr; stdin stays open until then."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [json.loads(line) for line in process.stdout]
    said = process.stderr.read().decode()
    return lines[-1], process.wait(DEADLINE_S), said


def smoke(
    archive: Path,
    artifact: Artifact,
    *more: str,
    **options: Any,  # noqa: ANN401 - those of started
) -> tuple[dict[str, Any], int, str]:
    arguments = ("smoke", str(artifact.directory), "--runtime", "onnxruntime", *more)
    with started(archive, *arguments, **options) as process:
        return ended(process)


def test_an_illegal_instruction_is_named(archive: Path, artifact: Artifact, tmp_path: Path) -> None:
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
    last, status, _ = smoke(
        archive, artifact, environment=write_module(tmp_path, "onnxruntime", source)
    )
    assert (last["outcome"], status) == ("illegal-instruction", 9)
    assert last["message"].startswith("SIGILL")
    assert last["worker_peak_bytes"] > 1 << 20


@pytest.mark.parametrize(
    "source",
    [
        "block = bytearray(1 << 34)",
        pytest.param("import numpy\nblock = numpy.ones(1 << 31)", marks=pytest.mark.slow),
        'import os, sys\nsys.stderr.write("terminate called after throwing an instance of '
        "'std::bad_alloc'\\n  what():  std::bad_alloc\\n\")\nsys.stderr.flush()\nos.abort()",
        pytest.param(
            "raise RuntimeError('Failed to allocate memory for requested buffer of size 42')",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["python", "numpy", "c++", "message"],
)
def test_memory_that_cannot_be_had_is_named(
    archive: Path, artifact: Artifact, tmp_path: Path, source: str
) -> None:
    body = source.replace("\n", "\n        ")
    environment = write_module(tmp_path, "onnxruntime", INTERFACE.format(body))
    last, status, _ = smoke(
        archive,
        artifact,
        environment=environment,
        prepare=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
    )
    assert (last["outcome"], status) == ("out-of-memory", 6)
    assert last["worker_peak_bytes"] > 1 << 20


def test_a_numpy_that_is_too_old_is_named(
    archive: Path, artifact: Artifact, tmp_path: Path
) -> None:
    environment = write_module(tmp_path, "numpy", "__version__ = '1.9.2'")
    last, status, _ = smoke(archive, artifact, environment=environment)
    assert (last["outcome"], last["message"], status) == (
        "wrong-numpy",
        "numpy 1.9.2 is older than 1.13",
        8,
    )


@pytest.mark.slow
def test_a_numpy_that_does_not_load_is_named(
    archive: Path, artifact: Artifact, tmp_path: Path
) -> None:
    source = "raise ImportError('libopenblas.so.0: cannot open shared object file')"
    last, _, _ = smoke(archive, artifact, environment=write_module(tmp_path, "numpy", source))
    assert last["outcome"] == "wrong-numpy"
    assert "libopenblas" in last["message"]


def test_a_python_without_packages_has_no_numpy(archive: Path, artifact: Artifact) -> None:
    last, status, _ = smoke(archive, artifact, flags=("-S", "-E"))
    assert (last["outcome"], last["message"], status) == (
        "no-numpy",
        "this Python has no numpy",
        8,
    )


def test_what_a_runtime_prints_is_no_event(
    archive: Path, artifact: Artifact, tmp_path: Path
) -> None:
    source = "import os\nprint('hello')\nos.write(1, b'world\\n')\nraise RuntimeError('no model')"
    body = source.replace("\n", "\n        ")
    environment = write_module(tmp_path, "onnxruntime", INTERFACE.format(body))
    last, _, said = smoke(archive, artifact, environment=environment)
    assert (last["outcome"], last["message"]) == ("refused", "no model")
    assert {"hello", "world"} <= set(said.splitlines())


HANGS: Final = INTERFACE.format("import time; time.sleep(600)")


def test_a_deadline_ends_it(archive: Path, artifact: Artifact, tmp_path: Path) -> None:
    environment = write_module(tmp_path, "onnxruntime", HANGS)
    last, status, _ = smoke(archive, artifact, "--deadline", "0.5", environment=environment)
    assert (last["outcome"], last["message"], status) == ("timeout", "not finished within 0.5 s", 8)


def close_stdin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize(
    "end",
    [
        close_stdin,
        pytest.param(subprocess.Popen.terminate, marks=pytest.mark.slow),
        subprocess.Popen.kill,
    ],
    ids=["stdin", "SIGTERM", "SIGKILL"],
)
def test_a_worker_ends_with_whoever_asked_for_it(
    archive: Path,
    artifact: Artifact,
    tmp_path: Path,
    end: Callable[[subprocess.Popen[bytes]], None],
) -> None:
    environment = write_module(tmp_path, "onnxruntime", HANGS)
    arguments = ("smoke", str(artifact.directory), "--runtime", "onnxruntime")
    with started(archive, *arguments, environment=environment) as process:
        assert process.stdout is not None
        worker = os.pidfd_open(json.loads(process.stdout.readline())["pid"])
        end(process)
        assert select.select([worker], [], [], DEADLINE_S)[0]
        os.close(worker)
        assert process.wait(DEADLINE_S) == (
            6 if end is not subprocess.Popen.kill else -signal.SIGKILL
        )


@pytest.mark.slow
def test_a_worker_offers_itself_to_the_kernels_killer(
    archive: Path, artifact: Artifact, tmp_path: Path
) -> None:
    environment = write_module(tmp_path, "onnxruntime", HANGS)
    arguments = ("smoke", str(artifact.directory), "--runtime", "onnxruntime")
    with started(archive, *arguments, environment=environment) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["pid"]
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"


@pytest.mark.slow
def test_each_runtime_is_described_also_beside_one_that_dies(archive: Path, tmp_path: Path) -> None:
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
    environment = write_module(tmp_path, "onnxruntime", source)
    with started(archive, "describe", environment=environment | {"PATH": ""}) as process:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
    assert [event["event"] for event in events] == [
        "python",
        *["runtime"] * (len(events) - 2),
        "end",
    ]
    assert events[0]["version"] == ".".join(str(part) for part in sys.version_info[:3])
    found = {event["name"]: event for event in events[1:-1]}
    assert found["onnxruntime"]["problem"].startswith("SIGILL")
    assert found["litert"]["problem"] is None
    assert found["litert"]["version"].startswith("2.")


def test_a_python_without_packages_is_described(archive: Path) -> None:
    environment = {"PATH": ""}
    with started(archive, "describe", environment=environment, flags=("-S", "-E")) as process:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
    assert [event["event"] for event in events] == ["python", "end"]
    assert (events[0]["numpy"], events[0]["problem"]) == (None, "this Python has no numpy")
