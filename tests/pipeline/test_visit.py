from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.budget import worst_exit_code
from edgeship.device_tests.bench.plan import PLANS
from edgeship.device_tests.devices import Device
from edgeship.device_tests.transports.protocol import ConnectionFailed
from edgeship.errors import ConfigurationError, ExitCode, IntegrityRefused, RequirementMissing
from edgeship.pipeline.plan import Plan
from edgeship.pipeline.timing import run_timings
from edgeship.pipeline.trial import Trial, run_trials
from edgeship.pipeline.visit import Visit
from edgeship.story import Silence

boards = SimpleNamespace(**run_path(str(Path(__file__).with_name("boards.py"))))
INT8, FP16, FP32 = boards.PRECISIONS
TEST: Final = "edgeship test"
CRASHING: Final = f"{boards.START}\n{boards.CRASH}"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Where runs have their directories on the boards."""
    path = tmp_path / "runs"
    path.mkdir()
    return path


def device(name: str, runs: Path, **more: object) -> Device:
    values = {"target": name, "directory": str(runs), "python": str(runs.parent / "python")}
    found: Device = boards.FakeDevice(name=name, **{**values, **more})
    return found


def trials_of(plan: Plan, *known: Device, forces: bool = False) -> tuple[Trial, ...]:
    return run_trials(plan, boards.devices(*known), Silence(), samples=0, forces=forces)


def code(visit: Visit) -> ExitCode:
    return worst_exit_code(visit.exit_codes)


def runs_precision(precision: str) -> Callable[[Sequence[str]], bool]:
    def breaks(command: Sequence[str]) -> bool:
        return "smoke" in command and any(f"-{precision}-" in part for part in command)

    return breaks


def test_what_was_said_before_a_board_was_lost_stays(project: Path, runs: Path) -> None:
    plan = boards.write_project(project, "here")
    boards.write_python(runs.parent, {})
    done, lost, rest = trials_of(plan, device("here", runs, breaks=runs_precision(FP16)))
    assert (done.error, code(done)) == (None, ExitCode.OK)
    assert boards.evidence_of(project, INT8) == [TEST]
    assert (lost.item.recipe.precision, lost.runtime, lost.run) == (FP16, "onnxruntime", None)
    assert (rest.item.recipe.precision, rest.runtime, rest.run) == (FP32, None, None)
    assert code(lost) == code(rest) == ExitCode.MISSING
    assert boards.evidence_of(project, FP16) == boards.evidence_of(project, FP32) == []
    assert isinstance(lost.error, ConnectionFailed)
    assert lost.error is rest.error
    told, left = (problem.what for problem in lost.error.problems)
    assert told == "nobody answers"
    assert left.endswith("may stay on the board, and what runs out of it")


@pytest.mark.slow
def test_a_board_that_does_not_answer_leaves_the_others(project: Path, runs: Path) -> None:
    plan = boards.write_project(project, "off", "here")
    boards.write_python(runs.parent, {})
    trials = trials_of(plan, device("off", runs, is_off=True), device("here", runs))
    assert [code(trial) for trial in trials] == [ExitCode.MISSING] * 3 + [ExitCode.OK] * 3
    assert boards.evidence_of(project, FP32, "off") == []
    assert boards.evidence_of(project, FP32, "here") == [TEST]
    assert list(runs.iterdir()) == []


def test_what_one_artifact_does_to_its_run_leaves_the_others(project: Path, runs: Path) -> None:
    plan = boards.write_project(project, "here")
    boards.write_python(runs.parent, {INT8: "exit 127", FP16: CRASHING})
    refused, crashed, fine = trials_of(plan, device("here", runs))
    assert isinstance(refused.error, RequirementMissing)
    assert not isinstance(refused.error, ConnectionFailed)
    assert code(crashed) == ExitCode.DEVICE_MISMATCH
    assert crashed.evidence is not None
    assert crashed.evidence.failure is not None
    assert crashed.evidence.failure.outcome == "illegal-instruction"
    assert code(fine) == ExitCode.OK
    assert [boards.evidence_of(project, each) for each in boards.PRECISIONS] == [[], [TEST], [TEST]]


@pytest.mark.slow
def test_a_board_that_stops_answering_at_the_end_does_not_take_its_results(
    project: Path, runs: Path
) -> None:
    plan = boards.write_project(project, "here")
    boards.write_python(runs.parent, {})
    removed: list[str] = []

    def breaks(command: Sequence[str]) -> bool:
        is_last = len(removed) == len(boards.PRECISIONS)
        removed.extend(command[2:] if command[:2] == ["rm", "-rf"] else ())
        return is_last

    *others, last = trials_of(plan, device("here", runs, breaks=breaks))
    assert [trial.error for trial in others] == [None, None]
    assert last.run is not None
    assert last.run.is_ok
    assert code(last) == ExitCode.MISSING
    assert boards.evidence_of(project, FP32) == [TEST]


def test_a_wrong_device_is_told_before_anything_runs(project: Path, runs: Path) -> None:
    plan = boards.write_project(project, "here", "there")
    two = [Device(name=name, target="there") for name in ("a", "b")]
    with pytest.raises(ConfigurationError, match="several devices are of there"):
        trials_of(plan, device("here", runs, python=sys.executable), *two)
    assert boards.evidence_of(project, INT8) == []


@pytest.mark.parametrize("command", ["test", "bench"])
def test_what_was_forced_is_judged_and_not_kept(project: Path, runs: Path, command: str) -> None:
    plan = boards.write_project(project, "here", arch="armv7l")
    boards.write_python(runs.parent, dict.fromkeys(boards.PRECISIONS, CRASHING))
    here = boards.devices(device("here", runs))
    found: Sequence[Visit]
    for forces in (False, True):
        if command == "test":
            found = run_trials(plan, here, Silence(), samples=0, forces=forces)
        else:
            how = PLANS["tiny"]
            found = run_timings(plan, here, Silence(), how=how, threads=1, forces=forces)
        expected = ExitCode.DEVICE_MISMATCH if forces else ExitCode.INTEGRITY
        assert [code(visit) for visit in found] == [expected] * 3
        assert all((visit.evidence is not None) == forces for visit in found)
        notes = [note for visit in found for note in visit.notes if "not kept" in note]
        assert len(notes) == (3 if forces else 0)
        assert [boards.evidence_of(project, each) for each in boards.PRECISIONS] == [[]] * 3


def test_force_makes_no_runtime(project: Path, runs: Path) -> None:
    plan = boards.write_project(project, "here")
    boards.write_python(runs.parent, {}, runtimes="")
    trials = trials_of(plan, device("here", runs), forces=True)
    assert [type(trial.error) for trial in trials] == [IntegrityRefused] * 3


def test_what_is_not_built_is_told_without_a_board(project: Path, runs: Path) -> None:
    plan = boards.write_project(project, "here")
    for precision in boards.PRECISIONS:
        (project / f"build/here/onnx-{precision}/manifest.json").unlink()
    trials = trials_of(plan, device("here", runs, is_off=True))
    assert {str(trial.error).partition(": ")[2] for trial in trials} == {
        "it was never built; run `edgeship build`"
    }
