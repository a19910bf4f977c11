"""Smoke: one artifact in one runtime against its golden pack, then over a sample of data."""

import argparse
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from edgeship.device_tests.board.account import MemoryAccount, say_start
from edgeship.device_tests.board.artifact import Artifact, read_artifact
from edgeship.device_tests.board.diagnosis import diagnose
from edgeship.device_tests.board.golden import Case, judge, judge_together, read_cases
from edgeship.device_tests.board.lines import Lines
from edgeship.device_tests.board.packages import numbers
from edgeship.device_tests.board.preprocess import (
    image_spec,
    input_from_pixels,
    pixels_of,
    recipe_of,
)
from edgeship.device_tests.board.runtimes import Loaded, load_runtime, misfit
from edgeship.device_tests.board.sample import run_sample
from edgeship.device_tests.board.session import Session
from edgeship.device_tests.board.stopped import Stopped
from edgeship.device_tests.board.tensors import real, spelled


def run(options: argparse.Namespace, lines: Lines) -> Dict[str, object]:
    """Events "start", "case" for each expectation, "memory", "sample"; keys of the last event.

    Raises:
        Stopped: Whatever keeps it from a verdict.
    """
    artifact = read_artifact(options.artifact)
    loaded = load_runtime(options.runtime, options.program)
    _require_least(loaded, options.least)
    say_start(lines, loaded, options.threads)
    account = MemoryAccount()
    session = loaded.open(artifact, options.threads)
    try:
        cases = read_cases(artifact)
        events, outputs = _run_cases(cases, session, artifact, lines)
        account.say(lines, session)
        wrong = [event for event in events if event["is_ok"] is False]
        if outputs is not None and options.sample is not None:
            run_sample(session, options.sample, options.outputs, lines)
        if not wrong:
            return {"outcome": "ok", "message": None, "diagnosis": None}
        return {
            "outcome": "mismatch",
            "message": _summary(wrong, len(events)),
            "diagnosis": _diagnosis(cases, session, artifact),
        }
    finally:
        session.close()


def _require_least(loaded: Loaded, least: Optional[str]) -> None:
    """Of llama.cpp manifests count the library's own versions, which its packages do not say."""
    if least is None or loaded.name == "llama.cpp" or loaded.version is None:
        return
    if numbers(loaded.version) < numbers(least):
        message = f"{loaded.package} {loaded.version} is older than {least}"
        raise Stopped("no-runtime", message)


def _diagnosis(cases: List[Case], session: Any, artifact: Artifact) -> Optional[str]:  # noqa: ANN401 - a session
    """What explains a mismatch; a runtime that refuses altered inputs leaves it unexplained."""
    try:
        return diagnose(cases, session, artifact)
    except Stopped:
        return None


def _run_cases(
    cases: List[Case],
    session: Session,
    artifact: Artifact,
    lines: Lines,
) -> Tuple[List[Dict[str, object]], Optional[List[Dict[str, np.ndarray]]]]:
    """Events of all cases, said as they come; None for outputs where the inputs do not fit."""
    events: List[Dict[str, object]] = []
    outputs: List[Dict[str, np.ndarray]] = []
    for case in cases:
        judged = _judge_inputs(case, artifact)
        wrong = misfit(case.inputs, session.inputs)
        if wrong is None:
            wanted = {item["name"]: item["values"].shape for item in case.expect}
            outputs.append(session.answer(case.inputs, wanted))
            judged += judge(case, outputs[-1], artifact)
        else:
            judged.append(_event(case.name, "inputs", "file", "exact", None, message=wrong))
        for event in judged:
            lines.say("case", **event)
        events += judged
    for event in judge_together(events):
        lines.say("case", **event)
        events.append(event)
    return events, outputs if len(outputs) == len(cases) else None


def _judge_inputs(case: Case, artifact: Artifact) -> List[Dict[str, object]]:
    """Whether the raw bytes, preprocessed here by the manifest, give the inputs of the case."""
    spec = image_spec(artifact.inputs)
    if case.raw is None or spec is None:
        return []
    name = spec["name"]
    own = input_from_pixels(pixels_of(case.raw, spec), spec, recipe_of(spec))
    given = case.inputs[name]
    if own.shape != given.shape or own.dtype != given.dtype:
        message = f"{spelled(given)} instead of {spelled(own)}"
        return [_event(case.name, name, "preprocessing", "exact", None, message=message)]
    apart = np.abs(real(own, spec).astype(np.float64) - real(given, spec).astype(np.float64))
    difference = float(apart.max()) if np.isfinite(apart).all() else None
    return [_event(case.name, name, "preprocessing", "exact", difference)]


def _event(
    case: str,
    name: str,
    of: str,
    kind: str,
    difference: Optional[float],
    *,
    message: Optional[str] = None,
) -> Dict[str, object]:
    return {
        "case": case,
        "name": name,
        "of": of,
        "kind": kind,
        "difference": difference,
        "limit": 0.0,
        "is_ok": difference == 0.0,
        "message": message,
    }


def _summary(wrong: List[Dict[str, object]], count: int) -> str:
    """The first that is wrong, and how many are."""
    first: Dict[str, Any] = wrong[0]
    said = first["message"]
    if said is None:
        said = "it differs by {difference:.4g}, more than {limit:.4g} ({kind})".format(**first)
    which = "{name} of case {case}, against {of}".format(**first)
    return f"{len(wrong)} of {count} comparisons fail; {which}: {said}"
