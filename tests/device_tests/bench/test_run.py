from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeship.artifact import (
    Artifact,
    Manifest,
    Requirements,
    RuntimeNeed,
    describe_file,
    write_manifest,
)
from edgeship.calibration.samples import LoadedSample
from edgeship.contract import Contract, TensorSpec
from edgeship.device_tests.bench.plan import COUNTING, PLANS
from edgeship.device_tests.bench.run import bench, work
from edgeship.device_tests.heard import Heard
from edgeship.device_tests.transports.local import LocalTransport
from edgeship.device_tests.transports.protocol import (
    Connection,
    ConnectionFailed,
    DeadlinePassed,
    Ended,
)
from edgeship.evaluate.golden import run_case, write_golden_pack
from edgeship.vocabulary import Format, Place, Role

SHORT = replace(PLANS["tiny"], windows=1, min_queries=80, min_duration_s=0.0, warm_up_limit_s=0.0)
INPUT = TensorSpec(name="x", shape=(1, 32), dtype="float32")
OUTPUT = TensorSpec(name="y", shape=(1, 32), dtype="float32")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """y = x @ w, in ONNX."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    directory = tmp_path_factory.mktemp("artifact") / "onnx-fp32"
    directory.mkdir()
    weights = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(directory / "model.onnx"))
    contract = Contract(inputs=(INPUT,), outputs=(OUTPUT,))
    case = run_case(
        "ones",
        LoadedSample(inputs={"x": np.ones((1, 32), np.float32)}, pixels=None),
        model_inputs=(INPUT,),
        contract=contract,
        artifact=lambda inputs: {"y": inputs["x"] @ weights},
        reference=lambda inputs: {"y": inputs["x"] @ weights},
    )
    names = write_golden_pack(directory, [case], contract, output_steps={})
    files = [describe_file(directory, "model.onnx", Role.MODEL)]
    files += [describe_file(directory, name, Role.GOLDEN) for name in names]
    manifest = Manifest(
        edgeship="0",
        target="linux-x86-64",
        format=Format.ONNX,
        precision="fp32",
        files=tuple(files),
        source={},
        tools={},
        contract=contract,
        requires=Requirements(any_of=(RuntimeNeed(runtime="onnxruntime", min="1.17"),)),
    )
    write_manifest(directory, manifest)
    return Artifact(directory=directory, manifest=manifest)


@pytest.fixture
def connection() -> Iterator[Connection]:
    with LocalTransport().connect() as connection:
        yield connection


def test_a_bench_on_this_machine_gives_a_latency_and_why_it_is_invalid(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    found = bench(
        connection,
        str(tmp_path),
        artifact,
        runtime="onnxruntime",
        plan=SHORT,
        deadline_s=60.0,
        python=sys.executable,
    )
    assert (found.outcome, found.message) == ("ok", None), found.stderr
    assert found.runtime["runtime"] == "onnxruntime"
    latency = found.latency
    assert latency is not None
    assert latency.queries == 80
    assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p95_ms <= latency.p99_ms
    assert latency.p50_ms < latency.duration_s * 1000 / 40  # half of 80 queries took as much
    assert latency.load_ms > 0
    assert latency.warm_up_queries == SHORT.warm_up_queries
    assert not latency.is_valid
    rules = [reason.partition(":")[0] for reason in found.reasons]
    assert rules[:3] == ["too few queries", "too short", "not warm"]
    assert found.memory is not None
    assert found.memory.peak_bytes > found.memory.imported_bytes > 1 << 20


def test_an_emulated_board_has_work_and_no_latency(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    emulated = bench(
        connection,
        str(tmp_path),
        artifact,
        runtime="onnxruntime",
        plan=SHORT,
        deadline_s=60.0,
        python=sys.executable,
        place=Place.EMULATED,
    )
    assert emulated.outcome == "ok", emulated.stderr
    assert emulated.latency is None
    assert [reason.partition(":")[0] for reason in emulated.reasons] == ["emulated"]
    counted = work(
        connection,
        str(tmp_path),
        artifact,
        runtime="onnxruntime",
        cpu="cortex-a72",
        deadline_s=60.0,
        python=sys.executable,
    )
    assert counted.work is not None, counted.stderr
    assert counted.work.inferences == COUNTING.min_queries
    assert counted.work.spread[0] <= counted.work.instructions <= counted.work.spread[1]


def test_a_runtime_that_is_not_there_is_an_outcome(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/onnxruntime.py").write_text("raise ImportError('built for another board')\n")
    found = bench(
        connection,
        str(tmp_path),
        artifact,
        runtime="onnxruntime",
        plan=SHORT,
        deadline_s=60.0,
        python=sys.executable,
        environment={"PYTHONPATH": str(tmp_path / "fake")},
    )
    assert found.outcome == "no-runtime"
    assert "built for another board" in (found.message or "")
    assert (found.latency, found.memory, found.reasons) == (None, None, ())


def test_a_damaged_file_is_an_outcome(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    directory = tmp_path / "damaged"
    shutil.copytree(artifact.directory, directory)
    (directory / "model.onnx").write_bytes(b"\0" * 100)
    found = bench(
        connection,
        str(tmp_path),
        Artifact(directory=directory, manifest=artifact.manifest),
        runtime="onnxruntime",
        plan=SHORT,
        deadline_s=60.0,
        python=sys.executable,
    )
    assert found.outcome == "damaged"


def test_a_board_without_python_did_not_say_how_it_ended(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionFailed, match="status 3"):
        bench(
            connection,
            str(tmp_path),
            artifact,
            runtime="onnxruntime",
            plan=SHORT,
            deadline_s=60.0,
            python=str(script(tmp_path, "exit 3")),
        )


def test_what_is_no_line_of_ours_is_no_result(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    printing = script(tmp_path, """echo hello; echo '{"event": "end", "outcome": "ok"}'""")
    with pytest.raises(ConnectionFailed, match="'hello'"):
        bench(
            connection,
            str(tmp_path),
            artifact,
            runtime="onnxruntime",
            plan=SHORT,
            deadline_s=60.0,
            python=str(printing),
        )


def test_latencies_that_were_cut_are_no_result(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    cutting = f'{sys.executable} "$@"; truncate -s -8 {tmp_path}/outputs/latencies.bin'
    with pytest.raises(ConnectionFailed, match="latencies for"):
        bench(
            connection,
            str(tmp_path),
            artifact,
            runtime="onnxruntime",
            plan=SHORT,
            deadline_s=60.0,
            python=str(script(tmp_path, cutting)),
        )


def test_a_run_ends_by_its_deadline(
    connection: Connection, artifact: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(DeadlinePassed):
        bench(
            connection,
            str(tmp_path),
            artifact,
            runtime="onnxruntime",
            plan=SHORT,
            deadline_s=0.5,
            python=str(script(tmp_path, "exec sleep 60")),
        )


def script(directory: Path, text: str) -> Path:
    """In place of Python."""
    path = directory / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def ended(stderr: bytes = b"", *, status: int | None = 0, signal: str | None = None) -> Ended:
    return Ended(command=("x",), status=status, signal=signal, stdout=b"", stderr=stderr)


def test_events_are_heard_until_the_last_one() -> None:
    heard = Heard(where="bench")
    heard.line('{"event": "memory", "peak_bytes": 9, "imported_bytes": null}')
    heard.line('{"event": "end", "outcome": "refused", "message": "no such operator"}')
    heard.close(ended(b"\n".join(b"line %d" % number for number in range(30))))
    assert (heard.outcome, heard.message, heard.memory) == ("refused", "no such operator", None)
    assert heard.stderr.splitlines() == [f"line {number}" for number in range(10, 30)]


@pytest.mark.parametrize(
    ("lines", "how", "found"),
    [
        (['{"event": "start"}'], ended(b"Killed", status=None, signal="KILL"), "signal KILL; Kill"),
        ([], ended(status=127), "status 127"),
        (['{"event": "end"}'], ended(), "without an outcome"),
        (['{"event": "end", "outcome": "ok"}', "bye"], ended(), "'bye'"),
        (['{"event": "end", "outcome": "ok"}', '{"event": "x"}'], ended(), "no last line"),
        (["[1]", '{"event": "end", "outcome": "ok"}'], ended(), r"'\[1\]'"),
    ],
)
def test_half_a_result_is_none(lines: list[str], how: Ended, found: str) -> None:
    heard = Heard(where="bench")
    for line in lines:
        heard.line(line)
    with pytest.raises(ConnectionFailed, match=found):
        heard.close(how)


def test_the_command_starts_without_a_vendor_package() -> None:
    code = "import sys, edgeship.device_tests.bench.run as _; print('asyncssh' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"
