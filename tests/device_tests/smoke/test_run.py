import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import numpy as np
import pytest

from edgeship.artifact import Artifact
from edgeship.device_tests.smoke.result import Outcome, SmokeRun
from edgeship.device_tests.smoke.run import smoke
from edgeship.device_tests.smoke.sample import Sample, TensorSample
from edgeship.device_tests.transports.local import LocalTransport
from edgeship.device_tests.transports.protocol import Connection, ConnectionFailed, Ended
from edgeship.errors import RequirementMissing
from edgeship.runtimes.protocol import TFLITE_RUNTIME_VARIABLE
from edgeship.targets.board_facts import BoardFacts

TESTS: Final = Path(__file__).parents[2]
packs = SimpleNamespace(**run_path(str(TESTS / "device_tests/board/packs.py")))
DEADLINE_S: Final = 60.0


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    found: Artifact = packs.image_artifact(tmp_path_factory.mktemp("a") / "a", packs.image_spec())
    return found


@pytest.fixture
def connection() -> Iterator[Connection]:
    with LocalTransport().connect() as found:
        yield found


def smoked(
    connection: Connection,
    directory: Path,
    artifact: Artifact,
    runtime: str = "onnxruntime",
    sample: Sample | None = None,
    facts: BoardFacts | None = None,
    python: str = sys.executable,
) -> SmokeRun:
    return smoke(
        connection,
        str(directory),
        artifact,
        facts,
        runtime=runtime,
        sample=sample,
        deadline_s=DEADLINE_S,
        python=python,
    )


def test_an_onnx_file_matches_and_gives_the_samples_outputs(
    connection: Connection, tmp_path: Path, artifact: Artifact
) -> None:
    generator = np.random.default_rng(5)
    values = generator.standard_normal((7, 1, 3, 6, 6)).astype(np.float32)
    found = smoked(
        connection,
        tmp_path,
        artifact,
        sample=TensorSample(inputs={"image": values}),
        facts=BoardFacts(at="", cpu="Cortex-A72", os="Debian GNU/Linux 12"),
    )
    assert found.outcome is Outcome.OK, found
    assert found.is_ok
    assert [case.is_ok for case in found.cases] == [True] * 6
    expected = values.reshape(7, -1).astype(np.float64) @ packs.weights().astype(np.float64)
    assert found.outputs["logits"].shape == (7, 1, 4)
    # float32 sums of 108 products of numbers around 1
    np.testing.assert_allclose(found.outputs["logits"][:, 0], expected, atol=108 * 2**-22)
    assert found.where["cpu"] == "Cortex-A72"
    assert found.where["os"] == "Debian GNU/Linux 12"
    assert found.where["runtime"] == "onnxruntime"
    assert found.title.startswith("onnxruntime 1.")
    assert found.sentence == f"{found.title} gives the expected outputs on this board"
    assert found.imported_bytes is not None
    assert found.peak_bytes is not None
    assert found.imported_bytes <= found.peak_bytes


def tiny_tflite() -> bytes:
    """`packs.linear` on NHWC."""
    tiny = SimpleNamespace(**run_path(str(TESTS / "exporters/tflite/tiny.py")))
    net = tiny.Tiny()
    net.activation("image", 1, packs.SIZE, packs.SIZE, 3)
    net.constant("shape", [1, 108], np.int32)
    net.activation("flat", 1, 108)
    net.operator("RESHAPE", ["image", "shape"], ["flat"], "ReshapeOptions", newShape=[1, 108])
    net.linear("flat", packs.weights().T, [0.0] * 4, "logits")
    content: bytes = net.write(["image"], ["logits"])
    return content


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    directory = tmp_path_factory.mktemp("tflite") / "a"
    spec = packs.image_spec(packs.Layout.NHWC)
    found: Artifact = packs.image_artifact(directory, spec, content=tiny_tflite())
    return found


def test_a_tflite_file_matches_in_litert(
    connection: Connection, tmp_path: Path, tflite: Artifact
) -> None:
    found = smoked(connection, tmp_path, tflite, "litert")
    assert found.outcome is Outcome.OK, found
    assert found.where["runtime"] == "ai-edge-litert"


@pytest.mark.slow
def test_a_tflite_file_matches_in_tflite_runtime(
    connection: Connection, tmp_path: Path, tflite: Artifact
) -> None:
    python = os.environ.get(TFLITE_RUNTIME_VARIABLE) or str(
        TESTS.parent / ".cache/tflite/bin/python"
    )
    if not Path(python).exists():
        pytest.skip(f"no TFLite Runtime: `make fixtures` makes one, or {TFLITE_RUNTIME_VARIABLE}")
    found = smoked(connection, tmp_path, tflite, "tflite_runtime", python=python)
    assert found.outcome is Outcome.OK, found
    assert found.where["runtime"] == "tflite-runtime"
    assert found.where["version"].startswith("2.")


def test_another_answer_is_a_mismatch_with_its_diagnosis(
    connection: Connection, tmp_path: Path
) -> None:
    given, claimed = packs.image_spec(order=packs.ChannelOrder.BGR), packs.image_spec()
    wrong = packs.image_artifact(tmp_path / "a", given, claimed=claimed)
    found = smoked(connection, tmp_path, wrong)
    assert found.outcome is Outcome.MISMATCH
    assert "the golden inputs were made with BGR channels" in found.sentence
    assert [case.is_ok for case in found.cases] == [False, True, True] * 2


class Board:
    """Says these lines, and ends like that."""

    def __init__(self, lines: list[str], status: int = 0, stderr: bytes = b"") -> None:
        self._lines = lines
        self._status = status
        self._stderr = stderr

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        environment: Mapping[str, str] = {},
        on_line: Callable[[str], None] | None = None,
    ) -> Ended:
        del deadline_s, environment
        assert on_line is not None
        for line in self._lines:
            on_line(line)
        return Ended(
            command=tuple(command),
            status=self._status,
            signal=None,
            stdout=b"",
            stderr=self._stderr,
        )

    def put(self, files: Mapping[str, Path | bytes], directory: str, *, deadline_s: float) -> None:
        del files, directory, deadline_s

    def read(self, path: str, *, deadline_s: float) -> bytes:
        del path, deadline_s
        return b"1234"


START: Final = '{"event": "start", "package": "onnxruntime", "version": "1.0"}'
END: Final = '{"event": "end", "outcome": "ok", "message": null}'
CASE: Final = '{"event": "case", "case": "a"}'
SAMPLE: Final = (
    '{"event": "sample", "count": 1, "message": null, "outputs": [{"name": "y", "file": "%s", '
    '"dtype": "float32", "shape": [1], "sha256": "00"}]}'
)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [START],
        ["Welcome to the board!", START, END],
        [START, "[1, 2]", END],
        [START, END[:-1]],
        [START, END, START],
        [START, CASE, END],
        [START, '{"event": "end", "outcome": "fine"}'],
        [START, SAMPLE % "output0.bin", END],
        [START, SAMPLE % "../../etc/passwd", END],
    ],
)
def test_half_a_result_is_none(artifact: Artifact, tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(ConnectionFailed, match="smoke test of a in onnxruntime"):
        smoked(Board(lines), tmp_path, artifact)


def test_a_python_that_is_not_there_is_missing(
    connection: Connection, tmp_path: Path, artifact: Artifact
) -> None:
    with pytest.raises(RequirementMissing, match="cannot start its Python"):
        smoked(connection, tmp_path, artifact, python="python-that-is-nowhere")
