"""Measure: engines one after the other, several times in turn, with the same settings."""

import json
import os
import shutil
import sys
import tempfile
from array import array
from typing import Any, Dict, List, NamedTuple, Tuple

from edgeship.exporters.tensorrt.kit.board_archive import run_archive, stopped_by
from edgeship.exporters.tensorrt.kit.engines import engine_path, read_record
from edgeship.exporters.tensorrt.kit.kit_file import Kit
from edgeship.exporters.tensorrt.kit.percentiles import is_stable, percentiles_ms
from edgeship.exporters.tensorrt.kit.power import Sample, Tegrastats, summary_of
from edgeship.exporters.tensorrt.kit.process import death_of, run_process
from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import Numbers
from edgeship.exporters.tensorrt.kit.toolchain import Toolchain
from edgeship.exporters.tensorrt.kit.trtexec import Settings, bench_command
from edgeship.exporters.tensorrt.kit.trtexec_output import (
    Trace,
    summary_from_lines,
    trace_from_text,
)

_FIRST_INT64 = 9
"""TensorRT reads INT64 inputs as INT32 before this major version."""
_SLACK_S = 300.0
"""A choice: to load an engine and to begin."""


class Round(NamedTuple):
    """One measurement of one engine."""

    trace: Trace
    samples: List[Sample]
    says_unstable: bool


def measured_with(toolchain: Toolchain) -> str:
    """What takes the times: "trtexec", or "edgeship-board" where there is no trtexec."""
    return "trtexec" if toolchain.trtexec is not None else "edgeship-board"


def measure_engines(
    kit: Kit, toolchain: Toolchain, records: Dict[str, str], settings: Settings, repeats: int
) -> Dict[str, Dict[str, Any]]:
    """Latencies of each engine: in turn, so that a board that grows hot slows all of them.

    Args:
        kit: Its first golden case is every query.
        toolchain: trtexec measures where it is there.
        records: Of the engines by graph.
        settings: Of each round.
        repeats: Rounds of each engine.

    Raises:
        Stopped: "measurement-failed", or how the process ended.
    """
    rounds: Dict[str, List[Round]] = {name: [] for name in records}
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as directory:
        inputs = _write_inputs(kit, toolchain.version, directory)
        for _ in range(repeats):
            for name, record in records.items():
                with Tegrastats() as tegrastats:
                    if toolchain.trtexec is not None:
                        trace, says_unstable = _with_trtexec(
                            toolchain.trtexec,
                            toolchain.version,
                            record,
                            inputs,
                            settings,
                            directory,
                        )
                    else:
                        trace, says_unstable = (
                            _with_archive(kit, record, settings, directory),
                            False,
                        )
                rounds[name].append(Round(trace, tegrastats.samples, says_unstable))
    return {name: _summary(found) for name, found in rounds.items()}


def _with_trtexec(
    program: str,
    version: Numbers,
    record: str,
    inputs: Dict[str, str],
    settings: Settings,
    directory: str,
) -> Tuple[Trace, bool]:
    engine = os.path.abspath(engine_path(record, read_record(record)))
    times = os.path.join(directory, "times.json")
    command = bench_command(
        program, version, engine=engine, inputs=inputs, times="times.json", settings=settings
    )
    ended = run_process(command, _deadline_s(settings), directory=directory)
    summary = summary_from_lines(ended.lines)
    if ended.status != 0 or ended.is_late or not summary.is_passed:
        raise _of_measuring(death_of(ended, "measuring with trtexec"))
    try:
        with open(times, encoding="utf-8") as file:
            trace = trace_from_text(file.read(), settings.warm_up_ms)
        os.remove(times)
    except (OSError, ValueError) as error:
        message = f"trtexec's times cannot be read: {error}"
        raise Stopped("measurement-failed", message) from error
    return trace, summary.is_unstable


def _with_archive(kit: Kit, record: str, settings: Settings, directory: str) -> Trace:
    """Through Python: copies in, execution, copies out. The GPU's own times are not told."""
    plan = {
        "windows": 1,
        "min_queries": settings.iterations,
        "min_duration_s": settings.duration_s,
        "max_duration_s": 3 * settings.duration_s + 1,
        "warm_up_queries": 10,
        "warm_up_limit_s": settings.warm_up_ms / 1000,
        "heat_s": 0,
        "sustained_s": 0,
        "sampling_s": 0,
    }
    arguments = ["bench", kit.directory, "--runtime", "tensorrt", "--program", record]
    arguments += ["--plan", json.dumps(plan), "--outputs", directory]
    end = run_archive(kit, arguments, _deadline_s(settings))[-1]
    if end["outcome"] != "ok":
        raise stopped_by(end)
    latencies = array("q")
    with open(os.path.join(directory, end["file"]), "rb") as file:
        latencies.frombytes(file.read())
    if sys.byteorder == "big":
        latencies.byteswap()
    first = 0
    for phase in end["phases"]:
        if phase["name"] == "window":
            window = latencies[first : first + phase["count"]]
            return Trace(latency_ms=[value / 1e6 for value in window], compute_ms=[])
        first += phase["count"]
    raise Stopped("measurement-failed", "edgeship-board.pyz measured no window")


def _summary(rounds: List[Round]) -> Dict[str, Any]:
    """Percentiles over all rounds, the medians of each, and what tegrastats said."""
    latencies = [value for one in rounds for value in one.trace.latency_ms]
    computes = [value for one in rounds for value in one.trace.compute_ms]
    stable = [is_stable(one.trace.compute_ms or one.trace.latency_ms) for one in rounds]
    return {
        "latency": dict(percentiles_ms(latencies), queries=len(latencies)),
        "gpu_compute": percentiles_ms(computes) if computes else None,
        "round_p50_ms": [percentiles_ms(one.trace.latency_ms)["p50_ms"] for one in rounds],
        "is_stable": all(stable) and not any(one.says_unstable for one in rounds),
        "tegrastats": summary_of([sample for one in rounds for sample in one.samples]),
    }


def _write_inputs(kit: Kit, version: Numbers, directory: str) -> Dict[str, str]:
    """Files of the first golden case under plain names, by input, as this TensorRT reads them."""
    found = {}
    for index, spec in enumerate(kit.inputs):
        name = f"input{index}.bin"
        source, target = kit.golden_inputs[spec["name"]], os.path.join(directory, name)
        if spec["dtype"] == "int64" and version < (_FIRST_INT64,):
            with open(source, "rb") as file:
                values = array("q", file.read())
            with open(target, "wb") as file:
                array("i", values).tofile(file)
        else:
            shutil.copyfile(source, target)
        found[spec["name"]] = name
    return found


def _deadline_s(settings: Settings) -> float:
    return settings.warm_up_ms / 1000 + 4 * settings.duration_s + _SLACK_S


def _of_measuring(stopped: Stopped) -> Stopped:
    if stopped.outcome == "build-failed":
        return Stopped("measurement-failed", stopped.message)
    return stopped
