"""The benchmarks' arguments, arithmetic and refusals; nothing is timed."""

from __future__ import annotations

import importlib.util
import json
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from edgeship.pipeline.plan import make_plan
from edgeship.project_file import read_project

if importlib.util.find_spec("edgeship.tools.bench") is None:
    pytest.skip("tools/bench is not in the wheel", allow_module_level=True)

pytestmark = pytest.mark.checkout

BENCH: Final = "edgeship.tools.bench"
rig = import_module(f"{BENCH}.rig")
calibration = import_module(f"{BENCH}.calibration")
latency = import_module(f"{BENCH}.latency")
startup = import_module(f"{BENCH}.startup")
tflite = import_module(f"{BENCH}.tflite")
SCRIPTS: Final = (latency, calibration, startup, tflite)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder with the data's shape and none of its content."""
    folder = tmp_path / "shared"
    for part in ("calib", "test"):
        for name in ("truck", "airplane"):
            (folder / "cifar10" / part / name).mkdir(parents=True)
            (folder / "cifar10" / part / name / "0000.jpg").write_bytes(b"")
    weights = folder / "resnet_cifar" / "resnet20-12fca82f.th"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    return folder


@pytest.fixture
def project(tmp_path: Path, shared: Path) -> Path:
    """The rig's project in a folder of its own."""
    directory = tmp_path / "project"
    directory.mkdir()
    file: Path = rig.make_project(directory, shared, ["raspberry-pi-4", "linux-x86-64"])
    return file


@pytest.mark.parametrize("script", SCRIPTS)
def test_absent_data_is_one_line_and_exit_2(
    script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = vars(script)["main"]
    code = rig.run_script(lambda: main(["--shared", str(tmp_path / "nowhere")]))
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "nowhere" in err
    assert "--shared DIR" in err


@pytest.mark.parametrize("script", SCRIPTS)
def test_data_lies_beside_the_checkout_unless_named(script: object) -> None:
    parse = vars(script)["parse"]
    root = Path(__file__).parents[2]
    assert parse([]).shared == root.parent / "shared" / "data"
    assert parse(["--shared", "elsewhere"]).shared == Path("elsewhere")
    assert not parse([]).json
    assert parse(["--json"]).json


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        (latency, ["--runs", "0"]),
        (calibration, ["--rounds", "-1"]),
        (startup, ["--builds", "many"]),
        (startup, ["--sha", "abbreviated"]),
    ],
)
def test_wrong_arguments_exit_2(script: object, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        vars(script)["parse"](wrong)
    assert refused.value.code == 2


def test_at_least_2000_runs_of_each_file_by_default() -> None:
    assert latency.parse([]).runs >= 2000


def test_spread_is_median_and_extremes() -> None:
    found = rig.spread(iter([3.0, 1.0, 2.0, 10.0]))
    assert (found.median, found.low, found.high) == (2.5, 1.0, 10.0)
    assert found.text(1) == "2.5 (1.0..10.0)"


def test_ratio_to_nothing_is_infinite() -> None:
    assert rig.ratio(3.0, 2.0) == 1.5
    assert rig.ratio(3.0, 0.0) == float("inf")


def comparison(fp32_ms: list[float], int8_ms: list[float]) -> object:
    return latency.Comparison(
        target="board", fp32_ms=rig.spread(fp32_ms), int8_ms=rig.spread(int8_ms)
    )


def test_int8_is_as_fast_as_fp32_time_over_int8_time() -> None:
    found = latency.Comparison(
        target="board", fp32_ms=rig.spread([0.9, 2.0, 3.0]), int8_ms=rig.spread([0.3, 1.0, 2.0])
    )
    assert found.ratio_of_medians == 2.0
    assert found.ratio_of_minima == pytest.approx(3.0)


@pytest.mark.parametrize(("fp32_ms", "verdict"), [(1.7, "met"), (1.69, "missed")])
def test_speed_goal_is_1_7_of_the_medians(fp32_ms: float, verdict: str) -> None:
    (goal,) = latency.speed_goals(comparison([fp32_ms], [1.0]))
    assert goal.line() == f"board: int8 is {fp32_ms:.2f}x fp32 (goal >= 1.7x): {verdict}"


@pytest.mark.parametrize(
    ("top1", "agreement", "met"),
    [(0.795, 0.96, [True, True]), (0.7945, 0.9595, [False, False]), (0.82, 1.0, [True, True])],
)
def test_accuracy_goals_are_one_point_and_96_percent(
    top1: float, agreement: float, met: list[bool]
) -> None:
    artifact = {
        "target": "board",
        "format": "onnx",
        "precision": "int8",
        "evidence": [{"metrics": {"top1": top1, "reference_top1": 0.805, "agreement": agreement}}],
    }
    assert [goal.is_met for goal in latency.accuracy_goals(artifact)] == met


def measured(cpu_s: float, growth_mb: float) -> object:
    return calibration.Measured(
        cpu_s=rig.spread([cpu_s]), wall_s=rig.spread([cpu_s]), growth_mb=rig.spread([growth_mb])
    )


@pytest.mark.parametrize(
    ("ours", "many", "met"),
    [
        ((1.0, 10.0), 11.4, [True] * 5),
        ((1.1, 10.0), 11.6, [False, True, False, True, False]),
        ((1.0, 10.1), 10.0, [True, False, True, False, True]),
    ],
)
def test_calibration_goals_are_half_the_cpu_and_a_tenth_of_the_growth(
    ours: tuple[float, float], many: float, met: list[bool]
) -> None:
    costs = dict.fromkeys(calibration.PASSES, measured(2.0, 100.0))
    costs[calibration.OUR_PASS] = measured(*ours)
    costs[calibration.FEW_PASS] = measured(0.5, 10.0)
    costs[calibration.MANY_PASS] = measured(5.0, many)
    assert [goal.is_met for goal in calibration.goals(costs)] == met


def test_range_difference_is_of_the_width_over_tensors_of_both() -> None:
    ours = {"relu": [0.0, 4.04], "conv": [-1.0, 1.0], "mine": [0.0, 9.0]}
    theirs = {"relu": [0.0, 4.0], "conv": [-1.0, 1.0], "its": [0.0, 5.0]}
    assert calibration.largest_difference(ours, theirs) == pytest.approx(0.01)
    with pytest.raises(rig.CannotMeasure, match="in common"):
        calibration.largest_difference({"a": [0.0, 1.0]}, {"b": [0.0, 1.0]})


def test_peers_must_see_as_many_images(project: Path) -> None:
    with pytest.raises(rig.CannotMeasure, match="holds 2 images: give it 1000"):
        calibration.require_images(project.parent / "calib")


def test_project_can_be_planned_with_fp32_beside_int8(project: Path) -> None:
    names = [item.name for item in make_plan(read_project(project)).artifacts]
    assert names == [
        "raspberry-pi-4/onnx-int8",
        "raspberry-pi-4/onnx-fp32",
        "linux-x86-64/onnx-int8",
        "linux-x86-64/onnx-fp32",
    ]
    assert (project.parent / "labels.txt").read_text() == "airplane\ntruck\n"


def test_model_has_the_parameters_of_resnet20() -> None:
    resnet = import_module(f"{BENCH}.resnet")
    # 0.27 M (arXiv:1512.03385, table 6), which is 269,722 with option A
    assert sum(tensor.numel() for tensor in resnet.build().parameters()) == 269_722


def test_table_has_names_to_the_left_and_numbers_to_the_right() -> None:
    assert rig.table([("name", "ms"), ("a", "1.5")]) == ["name   ms", "a     1.5"]


def test_report_as_json_holds_run_value_and_goals(capsys: pytest.CaptureFixture[str]) -> None:
    goal = rig.Goal(text="fast", is_met=False)
    rig.report({"cpu": "x"}, ["line"], [goal], {"rounds": 3}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "run": {"cpu": "x"},
        "rounds": 3,
        "goals": [{"text": "fast", "is_met": False}],
    }


def test_report_for_people_ends_in_goals(capsys: pytest.CaptureFixture[str]) -> None:
    goal = rig.Goal(text="fast", is_met=False)
    rig.report({"cpu": "x"}, ["line"], [goal], {}, as_json=False)
    assert capsys.readouterr().out == "cpu x\n\nline\n\nfast: missed\n"
