"""Bench: latencies of one artifact in one runtime, and what the board said meanwhile."""

import argparse
import gc
import os
from typing import Callable, Dict, Set

from edgeship.device_tests.board.account import MemoryAccount, say_start
from edgeship.device_tests.board.artifact import read_artifact
from edgeship.device_tests.board.bench_plan import Plan, read_plan
from edgeship.device_tests.board.bench_sampler import Sampler
from edgeship.device_tests.board.bench_stream import Stream, perf_ns
from edgeship.device_tests.board.golden import Case, read_cases
from edgeship.device_tests.board.lines import Lines
from edgeship.device_tests.board.runtimes import load_runtime, misfit
from edgeship.device_tests.board.sensors import Sensors
from edgeship.device_tests.board.session import Session, Tensors
from edgeship.device_tests.board.stopped import Stopped

LATENCIES_NAME = "latencies.bin"


def run(options: argparse.Namespace, lines: Lines) -> Dict[str, object]:
    """Events "start", "board", "phase" as they begin, "sample", "memory"; keys of the last event.

    Every query is the first golden case: inputs of other lengths would look like a board that works
    now quickly, now slowly.

    Raises:
        Stopped: Whatever keeps it from running.
    """
    plan = _read_plan(options)
    artifact = read_artifact(options.artifact)
    case = read_cases(artifact)[0]
    loaded = load_runtime(options.runtime, options.program)
    say_start(lines, loaded, options.threads)
    account = MemoryAccount()
    clock_ns = perf_ns()
    before = clock_ns()
    session = loaded.open(artifact, options.threads)
    load_ns = clock_ns() - before
    try:
        if not session.is_timeable:
            message = "a query would be a whole process: trtexec times its engines itself"
            raise Stopped("refused", message)
        wrong = misfit(case.inputs, session.inputs)
        if wrong is not None:
            raise Stopped("refused", wrong)
        stream = Stream(_query(session, case), [case.inputs], clock_ns)
        _measure(stream, plan, Sensors(clock_ns=clock_ns), lines)
        account.say(lines, session)
    finally:
        session.close()
    os.makedirs(options.outputs, exist_ok=True)
    stream.write(os.path.join(options.outputs, LATENCIES_NAME))
    return {
        "outcome": "ok",
        "message": None,
        "file": LATENCIES_NAME,
        "phases": stream.phases,
        "is_stable": stream.is_stable,
        "load_ns": load_ns,
    }


def _read_plan(options: argparse.Namespace) -> Plan:
    if options.outputs is None:
        raise Stopped("failed", "usage: --outputs says where the latencies go")
    try:
        return read_plan(options.plan)
    except (OSError, ValueError) as error:
        raise Stopped("failed", "--plan: {}".format(error)) from error


def _query(session: Session, case: Case) -> Callable[[Tensors], Tensors]:
    """Inputs copied in, run, outputs copied out: what an application in Python waits for."""
    wanted = {item["name"]: item["values"].shape for item in case.expect}
    return lambda inputs: session.answer(inputs, wanted)


def _measure(stream: Stream, plan: Plan, sensors: Sensors, lines: Lines) -> None:
    """Run the plan with the sensors looked at; without Python's own collector of garbage."""
    lines.say("board", **sensors.board())
    gc.collect()
    gc.disable()
    seen: Set[str] = set()

    def on_phase(name: str) -> None:
        lines.say("phase", name=name)
        if name == "window" and name not in seen:  # what follows is held against this look
            sampler.look()
        seen.add(name)

    try:
        with Sampler(sensors, plan.sampling_s) as sampler:
            stream.run_plan(plan, on_phase)
    finally:
        gc.enable()
    for sample in sampler.samples:
        lines.say("sample", **sample)
