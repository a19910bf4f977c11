from __future__ import annotations

from pathlib import Path

import pytest

from edgeship.errors import ConfigurationError
from edgeship.pipeline.plan import Plan, make_plan
from edgeship.project_file import read_project


def plan_of(directory: Path, *targets: str) -> Plan:
    return make_plan(read_project(directory / "edgeship.toml"), targets)


def edit(directory: Path, old: str, new: str) -> None:
    file = directory / "edgeship.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def refused(directory: Path, *targets: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        plan_of(directory, *targets)
    return str(caught.value)


def test_fp32_stands_beside_int8_by_default(project: Path) -> None:
    int8, fp32 = plan_of(project).artifacts
    assert (int8.name, int8.is_companion) == ("raspberry-pi-4/onnx-int8", False)
    assert (fp32.name, fp32.is_companion) == ("raspberry-pi-4/onnx-fp32", True)


def test_named_precisions_are_made_and_no_others(project: Path) -> None:
    edit(project, 'formats = ["onnx"]', 'formats = ["onnx"]\nonnx.precisions = ["int8"]')
    (int8,) = plan_of(project).artifacts
    assert not int8.is_companion


def test_only_the_targets_that_are_asked_for_are_planned(project: Path) -> None:
    edit(
        project,
        "[targets.raspberry-pi-4]",
        '[targets.raspberry-pi-5]\nformats = ["onnx"]\n[targets.raspberry-pi-4]',
    )
    names = {item.target.name for item in plan_of(project, "raspberry-pi-5").artifacts}
    assert names == {"raspberry-pi-5"}


def test_an_unknown_target_on_the_command_line_names_the_closest(project: Path) -> None:
    message = refused(project, "raspbery-pi-4")
    assert "did you mean 'raspberry-pi-4'?" in message


def test_an_unknown_board_names_the_closest(project: Path) -> None:
    edit(project, "[targets.raspberry-pi-4]", "[targets.rasberry-pi-4]")
    assert "did you mean 'raspberry-pi-4'?" in refused(project)


def test_gguf_wants_a_hugging_face_directory(project: Path) -> None:
    edit(project, 'formats = ["onnx"]', 'formats = ["gguf"]')
    message = refused(project)
    assert "gguf is made of Hugging Face directories" in message
    assert "save_pretrained" in message


def test_a_board_that_cannot_take_a_format_says_why(project: Path) -> None:
    edit(project, "raspberry-pi-4", "jetson-nano")
    message = refused(project)
    assert "jetson-nano does not take onnx" in message
    assert "opset" in message


def test_int8_without_representative_data_is_refused(project: Path) -> None:
    edit(project, '[calibration]\ndata = "calib"\nsamples = 24\n', "")
    assert "needs representative data" in refused(project)


def test_fp16_without_representative_data_is_refused(project: Path) -> None:
    edit(project, 'formats = ["onnx"]', 'formats = ["onnx"]\nonnx.precisions = ["fp16"]')
    edit(project, '[calibration]\ndata = "calib"\nsamples = 24\n', "")
    assert "raspberry-pi-4/onnx-fp16 needs representative data" in refused(project)


def test_dynamic_needs_no_representative_data(project: Path) -> None:
    edit(project, 'formats = ["onnx"]', 'formats = ["onnx"]\nonnx.precisions = ["dynamic"]')
    edit(project, '[calibration]\ndata = "calib"\nsamples = 24\n', "")
    (dynamic,) = plan_of(project).artifacts
    assert not dynamic.is_calibrated


def test_fp16_looks_at_extremes_and_has_the_rules(project: Path) -> None:
    chosen = """\
onnx.precisions = ["int8", "fp16", "fp32"]
onnx.ranges = "percentile:99.9"
onnx.rules = [{ match = "head", precision = "fp32" }]"""
    edit(project, 'formats = ["onnx"]', f'formats = ["onnx"]\n{chosen}')
    int8, fp16, fp32 = plan_of(project).artifacts
    assert [str(item.ranges) for item in (int8, fp16)] == ["percentile:99.9", "min-max"]
    assert [len(item.recipe.rules) for item in (int8, fp16, fp32)] == [1, 1, 0]


def test_an_int8_rule_in_an_fp16_file_is_refused(project: Path) -> None:
    chosen = 'onnx.precisions = ["fp16"]\nonnx.rules = [{ match = "head", precision = "int8" }]'
    edit(project, 'formats = ["onnx"]', f'formats = ["onnx"]\n{chosen}')
    assert "a file in fp16 cannot hold layers in int8" in refused(project)


def test_an_empty_data_folder_is_refused_before_anything_slow(project: Path) -> None:
    (project / "none").mkdir()
    edit(project, 'data = "calib"', 'data = "none"')
    assert "the data is empty" in refused(project)


def test_top1_needs_class_folders(project: Path) -> None:
    edit(project, 'data = "test"', 'data = "test/dark"')
    assert "class folders" in refused(project)


def test_all_problems_come_at_once(project: Path) -> None:
    (project / "none").mkdir()
    edit(project, 'data = "calib"', 'data = "none"')
    edit(project, 'formats = ["onnx"]', 'formats = ["gguf"]')
    edit(
        project,
        "[targets.raspberry-pi-4]",
        '[targets.x]\nformats = ["onnx"]\n[targets.raspberry-pi-4]',
    )
    with pytest.raises(ConfigurationError) as caught:
        plan_of(project)
    assert len(caught.value.problems) == 3
