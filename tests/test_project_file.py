from __future__ import annotations

import copy
import datetime
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.budget import Budget
from edgeship.contract import Preprocess
from edgeship.errors import ConfigurationError, ExitCode, Problem
from edgeship.project import (
    CalibrationSection,
    EvaluationSection,
    Factory,
    FactorySource,
    FileSource,
    FormatSection,
    InputSection,
    ModelSection,
    Project,
    RangePolicy,
    Rule,
    TargetSection,
)
from edgeship.project_file import read_project
from edgeship.vocabulary import ChannelOrder, Format, Layout, Place, RangeMethod, Resize, Task

EXAMPLE = """
[model]
name = "resnet20"
factory = "model.py:build"
weights = "resnet20.safetensors"
[model.inputs.image]
shape = [1, 3, 32, 32]
preprocess = { size = [32, 32], resize = "exact", order = "RGB", mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }
[model.outputs]
labels = "labels.txt"
[calibration]
data = "data/calib"
samples = 512
[evaluation]
data = "data/test"
metric = "top1"
[targets.raspberry-pi-4]
formats = ["tflite", "onnx"]
[targets.raspberry-pi-4.tflite]
precisions = ["int8"]
ranges = "min-max"
[[targets.raspberry-pi-4.tflite.rules]]
match = "layer3.*"
precision = "fp32"
[targets.raspberry-pi-4.budget]
size = "400 kB"
accuracy_drop = "1.0 pt"
latency_p95 = "6 ms"
memory = "64 MB"
evidence = "device"
"""  # noqa: E501  # as users write it

SMALLEST = """
[model]
onnx = "model.onnx"
[model.inputs.x]
shape = [1, 4]
[targets.board]
formats = ["onnx"]
"""


def _write_files(directory: Path) -> Path:
    """The files that the projects of this module name; answers with the project file's path."""
    for name in ("data/calib", "data/test", "bert"):
        (directory / name).mkdir(parents=True)
    for name in ("model.py", "resnet20.safetensors", "model.onnx", "model.pt2", "labels.txt"):
        (directory / name).touch()
    return directory / "edgeship.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _write_files(tmp_path)


@pytest.fixture(scope="module")
def lasting_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For property tests, which write each example over the last one."""
    return _write_files(tmp_path_factory.mktemp("project"))


def _read(file: Path, text: str) -> Project:
    file.write_text(text, encoding="utf-8")
    return read_project(file)


def _problems(file: Path, text: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as caught:
        _read(file, text)
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    return list(caught.value.problems)


def _edited(*edits: tuple[str, str]) -> str:
    text = EXAMPLE
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the example"
        text = text.replace(old, new)
    return text


def test_example_of_the_design_is_read_into_dataclasses(file: Path) -> None:
    directory = file.parent
    assert _read(file, EXAMPLE) == Project(
        directory=directory,
        model=ModelSection(
            name="resnet20",
            source=FactorySource(
                factory=Factory(file=directory / "model.py", attribute="build"),
                weights=directory / "resnet20.safetensors",
            ),
            task=None,
            inputs=(
                InputSection(
                    name="image",
                    shape=(1, 3, 32, 32),
                    layout=Layout.NCHW,
                    preprocess=Preprocess(
                        size=(32, 32),
                        resize=Resize.EXACT,
                        order=ChannelOrder.RGB,
                        mean=(0.485, 0.456, 0.406),
                        std=(0.229, 0.224, 0.225),
                    ),
                ),
            ),
            labels=directory / "labels.txt",
        ),
        calibration=CalibrationSection(data=directory / "data/calib", samples=512),
        evaluation=EvaluationSection(data=directory / "data/test", metric="top1"),
        targets={
            "raspberry-pi-4": TargetSection(
                name="raspberry-pi-4",
                formats=(
                    FormatSection(
                        format=Format.TFLITE,
                        precisions=("int8",),
                        ranges=RangePolicy(method=RangeMethod.MIN_MAX),
                        rules=(Rule(match="layer3.*", precision="fp32"),),
                    ),
                    FormatSection(format=Format.ONNX),
                ),
                budget=Budget(
                    size_bytes=400_000,
                    accuracy_drop=0.01,
                    latency_p95_ms=6.0,
                    memory_bytes=64_000_000,
                    evidence=Place.DEVICE,
                ),
            )
        },
    )


def test_smallest_project_takes_the_defaults(file: Path) -> None:
    project = _read(file, SMALLEST)
    assert project.model.name == file.parent.name
    assert project.model.source == FileSource(kind="onnx", path=file.parent / "model.onnx")
    assert project.calibration is None
    assert project.evaluation is None
    assert project.targets["board"].budget == Budget()


def test_paths_are_absolute_wherever_the_project_is_read_from(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent.parent)
    file.write_text(EXAMPLE)
    project = read_project(file.relative_to(file.parent.parent))
    assert project.directory == file.parent
    assert project.calibration is not None
    assert project.calibration.data == file.parent / "data/calib"


@pytest.mark.parametrize(
    ("key", "name"), [("program", "model.pt2"), ("hf", "bert"), ("onnx", "model.onnx")]
)
def test_each_source_that_is_a_file_is_read(file: Path, key: str, name: str) -> None:
    text = SMALLEST.replace('onnx = "model.onnx"', f'{key} = "{name}"\ntask = "classification"')
    model = _read(file, text).model
    assert model.source == FileSource(kind=key, path=file.parent / name)
    assert model.task is Task.CLASSIFICATION


@pytest.mark.parametrize(
    ("shape", "preprocess", "layout"),
    [
        ("[1, 3, 8, 6]", "size = [8, 6]", Layout.NCHW),
        ("[1, 8, 6, 3]", "size = [8, 6]", Layout.NHWC),
        ("[1, 1, 8, 6]", 'size = [8, 6], order = "GRAY"', Layout.NCHW),
        ("[1, 8, 6, 1]", 'size = [8, 6], order = "GRAY"', Layout.NHWC),
        ("[1, 3, 3, 3]\nlayout = 'NHWC'", "size = [3, 3]", Layout.NHWC),
    ],
)
def test_layout_follows_from_shape_and_size_unless_it_is_named(
    file: Path, shape: str, preprocess: str, layout: Layout
) -> None:
    text = SMALLEST.replace("[1, 4]", f"{shape}\npreprocess = {{ {preprocess} }}")
    assert _read(file, text).model.inputs[0].layout is layout


def test_mean_and_std_have_a_neutral_value_for_each_channel(file: Path) -> None:
    preprocess = "preprocess = { size = [8, 6], order = 'GRAY' }"
    project = _read(file, SMALLEST.replace("[1, 4]", f"[1, 1, 8, 6]\n{preprocess}"))
    assert project.model.inputs[0].preprocess == Preprocess(
        size=(8, 6), order=ChannelOrder.GRAY, mean=(0.0,), std=(1.0,)
    )


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("min-max", RangePolicy()),
        ("percentile", RangePolicy(method=RangeMethod.PERCENTILE)),
        ("percentile:99.5", RangePolicy(method=RangeMethod.PERCENTILE, percentile=99.5)),
        ("percentile:100", RangePolicy(method=RangeMethod.PERCENTILE, percentile=100.0)),
    ],
)
def test_range_policy(file: Path, text: str, policy: RangePolicy) -> None:
    project = _read(file, _edited(('"min-max"', f'"{text}"')))
    assert project.targets["raspberry-pi-4"].formats[0].ranges == policy


@pytest.mark.parametrize("policy", ["min-max", "percentile:99.999", "percentile:75.25"])
def test_range_policy_is_shown_as_it_is_written(file: Path, policy: str) -> None:
    project = _read(file, _edited(('"min-max"', f'"{policy}"')))
    assert str(project.targets["raspberry-pi-4"].formats[0].ranges) == policy


_GGUF = (
    ('formats = ["tflite", "onnx"]', 'formats = ["gguf", "tflite"]'),
    (
        '[targets.raspberry-pi-4.tflite]\nprecisions = ["int8"]',
        '[targets.raspberry-pi-4.gguf]\nprecisions = ["q4_0"]\nstrict = true\ncontext = 2048\n'
        'converter = "tools/convert_hf_to_gguf.py"\n'
        '[targets.raspberry-pi-4.tflite]\nprecisions = ["int8"]',
    ),
)


def test_gguf_has_keys_of_its_own(file: Path) -> None:
    script = file.parent / "tools" / "convert_hf_to_gguf.py"
    script.parent.mkdir()
    script.touch()
    gguf, tflite = _read(file, _edited(*_GGUF)).targets["raspberry-pi-4"].formats
    assert (gguf.is_strict, gguf.context, gguf.converter) == (True, 2048, script)
    assert (tflite.is_strict, tflite.context, tflite.converter) == (False, None, None)


def test_converter_must_be_a_file(file: Path) -> None:
    (file.parent / "tools" / "convert_hf_to_gguf.py").mkdir(parents=True)
    (problem,) = _problems(file, _edited(*_GGUF))
    assert problem.where.endswith("targets.raspberry-pi-4.gguf.converter")
    assert problem.what == "no such file"


def test_other_formats_have_no_converter(file: Path) -> None:
    text = _edited(('ranges = "min-max"', 'converter = "model.py"'))
    (problem,) = _problems(file, text)
    assert problem.where.endswith("targets.raspberry-pi-4.tflite.converter")


def test_accuracy_drop_of_off_is_no_limit_and_no_default(file: Path) -> None:
    budget = _read(file, _edited(('"1.0 pt"', '"off"'))).targets["raspberry-pi-4"].budget
    assert budget.accuracy_drop is None
    assert not budget.is_accuracy_judged


def test_formats_keep_their_order(file: Path) -> None:
    project = _read(file, _edited(('["tflite", "onnx"]', '["onnx", "tflite"]')))
    formats = project.targets["raspberry-pi-4"].formats
    assert [section.format for section in formats] == [Format.ONNX, Format.TFLITE]


PI = "targets.raspberry-pi-4"
IMAGE = "model.inputs.image"
SIZE_32, STD, SHAPE = "size = [32, 32]", "[0.229, 0.224, 0.225]", "[1, 3, 32, 32]"

# Each row: what is replaced in the example, by what, the key that must be named, words that must
# be in the problem.
ERRORS = [
    # names
    ("[calibration]", "[calibraton]", "calibraton", "did you mean 'calibration'?"),
    ("samples = 512", "sample = 512", "calibration.sample", "did you mean 'samples'?"),
    ("weights =", "x = 1\nweights =", "model.x", "unknown key 'x'"),
    ("labels =", "lables =", "model.outputs.lables", "did you mean 'labels'?"),
    ('resize = "exact"', 'resise = "exact"', f"{IMAGE}.preprocess.resise", "'resize'?"),
    ("shape = [", "shap = 1\nshape = [", f"{IMAGE}.shap", "did you mean 'shape'?"),
    ("memory =", "memry =", f"{PI}.budget.memry", "did you mean 'memory'?"),
    ('ranges = "', 'range = "', f"{PI}.tflite.range", "did you mean 'ranges'?"),
    ('match = "', 'wide = 1\nmatch = "', f"{PI}.tflite.rules[0].wide", "unknown key"),
    ('"tflite", "onnx"', '"tflit", "onnx"', f"{PI}.formats", "did you mean 'tflite'?"),
    ('["int8"]', '["int9"]', f"{PI}.tflite.precisions", "did you mean 'int8'?"),
    ('["int8"]', '["q4_0"]', f"{PI}.tflite.precisions", "fp32, fp16, int8, dynamic"),
    ('precision = "fp32"', 'precision = "f32"', f"{PI}.tflite.rules[0].precision", "'fp32'?"),
    ('"min-max"', '"minmax"', f"{PI}.tflite.ranges", "did you mean 'min-max'?"),
    ('"top1"', '"top5"', "evaluation.metric", "did you mean 'top1'?"),
    ('"device"', '"devise"', f"{PI}.budget.evidence", "did you mean 'device'?"),
    ('"RGB"', '"RBG"', f"{IMAGE}.preprocess.order", "RGB, BGR, GRAY"),
    ('"exact"', '"exakt"', f"{IMAGE}.preprocess.resize", "did you mean 'exact'?"),
    ('name = "resnet20"', 'task = "detection"', "model.task", "classification"),
    ("shape = [", 'layout = "CHWN"\nshape = [', f"{IMAGE}.layout", "NCHW, NHWC"),
    # files
    ("model.py:build", "modle.py:build", "model.factory", "no such file"),
    ('"resnet20.safetensors"', '"gone"', "model.weights", "no such file"),
    ('"resnet20.safetensors"', f'"{"x" * 300}"', "model.weights", "no such file"),
    ('"labels.txt"', '"gone.txt"', "model.outputs.labels", "gone.txt"),
    ('"data/calib"', '"data/gone"', "calibration.data", "data/gone"),
    ('"data/test"', '"data/gone"', "evaluation.data", "data/gone"),
    ("formats =", 'file = "board.toml"\nformats =', f"{PI}.file", "board.toml"),
    # quantities
    ('"400 kB"', '"400"', f"{PI}.budget.size", "kB"),
    ('"400 kB"', '"400 KB"', f"{PI}.budget.size", "kB"),
    ('"400 kB"', f'"{"9" * 400} kB"', f"{PI}.budget.size", "kB"),
    ('"400 kB"', "400", f"{PI}.budget.size", "expected text"),
    ('"6 ms"', '"6 min"', f"{PI}.budget.latency_p95", "ms"),
    ('"64 MB"', '"-64 MB"', f"{PI}.budget.memory", "MB"),
    ('"1.0 pt"', '"1.0"', f"{PI}.budget.accuracy_drop", "pt"),
    ('"1.0 pt"', '"101 pt"', f"{PI}.budget.accuracy_drop", "at most 100 pt"),
    ('"1.0 pt"', "1.0", f"{PI}.budget.accuracy_drop", "expected text"),
    ('"1.0 pt"', "false", f"{PI}.budget.accuracy_drop", "expected text"),
    ('"min-max"', '"min-max:99"', f"{PI}.tflite.ranges", "percentile:99.999"),
    ('"min-max"', '"percentile:50"', f"{PI}.tflite.ranges", "(50, 100]"),
    ('"min-max"', '"percentile:101"', f"{PI}.tflite.ranges", "(50, 100]"),
    ('"min-max"', '"percentile:"', f"{PI}.tflite.ranges", "(50, 100]"),
    ('"min-max"', '"percentile:nan"', f"{PI}.tflite.ranges", "(50, 100]"),
    # kinds
    ('name = "resnet20"', "name = 20", "model.name", "expected text, found 20"),
    ('name = "resnet20"', 'name = ""', "model.name", "empty"),
    ("samples = 512", 'samples = "512"', "calibration.samples", "expected an integer"),
    ("samples = 512", "samples = true", "calibration.samples", "expected an integer"),
    ("samples = 512", "samples = 5.0", "calibration.samples", "expected an integer"),
    ("samples = 512", "samples = 0", "calibration.samples", "at least 1"),
    ('["tflite", "onnx"]', '"tflite"', f"{PI}.formats", "expected a list, found 'tflite'"),
    ('["tflite", "onnx"]', '["tflite", 1]', f"{PI}.formats", "expected a list of texts"),
    ('["tflite", "onnx"]', "[]", f"{PI}.formats", "the list is empty"),
    ('["tflite", "onnx"]', '["tflite", "tflite"]', f"{PI}.formats", "twice"),
    ('["int8"]', "[]", f"{PI}.tflite.precisions", "the list is empty"),
    ('["int8"]', '["int8", "int8"]', f"{PI}.tflite.precisions", "twice"),
    (SHAPE, '"1x3x32x32"', f"{IMAGE}.shape", "found '1x3x32x32'"),
    (SHAPE, "[1, 3, 32, 32.0]", f"{IMAGE}.shape", "a list of integers"),
    (SHAPE, "[1, 3, -1, 32]", f"{IMAGE}.shape", "from 1 on"),
    (SIZE_32, "size = 32", f"{IMAGE}.preprocess.size", "found 32"),
    (SIZE_32, "size = [32, 0]", f"{IMAGE}.preprocess.size", "from 1 on"),
    (STD, "1.0", f"{IMAGE}.preprocess.std", "found 1.0"),
    (STD, "[1, 1, inf]", f"{IMAGE}.preprocess.std", "finite"),
    (STD, "[1, 1, nan]", f"{IMAGE}.preprocess.std", "finite"),
    (STD, f"[1, 1, 1{'0' * 400}]", f"{IMAGE}.preprocess.std", "finite"),
    # meaning
    (SHAPE, "[8, 3, 32, 32]", f"{IMAGE}.shape", "the batch must be 1"),
    (SHAPE, "[]", f"{IMAGE}.shape", "the batch must be 1"),
    (SHAPE, "[1, 3, 32, 31]", f"{IMAGE}.shape", "[1, 32, 32, 3] (NHWC)"),
    (SHAPE, "[1, 1, 32, 32]", f"{IMAGE}.shape", "does not fit"),
    (SHAPE, f"{SHAPE}\nlayout = 'NHWC'", f"{IMAGE}.shape", "[1, 32, 32, 3] (NHWC)"),
    (SIZE_32, "size = [32]", f"{IMAGE}.preprocess.size", "[height, width]"),
    (STD, "[1.0, 0.0, 1.0]", f"{IMAGE}.preprocess.std", "must be > 0"),
    (STD, "[1.0, -1.0, 1.0]", f"{IMAGE}.preprocess.std", "must be > 0"),
    (STD, "[1.0]", f"{IMAGE}.preprocess.std", "expected 3, found 1"),
    (STD, "[]", f"{IMAGE}.preprocess.std", "expected 3, found 0"),
    ("model.py:build", "model.py", "model.factory", "file.py:function"),
    ("model.py:build", "model.py:not a name", "model.factory", "file.py:function"),
    ("weights =", 'onnx = "model.onnx"\nweights =', "model", "found factory, onnx"),
    ("weights =", 'hf = "bert"\nweights =', "model", "name exactly one"),
    ('factory = "model.py:build"', "", "model", "found none"),
    # absent
    ('weights = "resnet20.safetensors"', "", "model.weights", "missing"),
    (f"shape = {SHAPE}", "", f"{IMAGE}.shape", "missing"),
    (SIZE_32 + ", ", "", f"{IMAGE}.preprocess.size", "[height, width]"),
    ('data = "data/calib"', "", "calibration.data", "missing"),
    ('data = "data/test"', "", "evaluation.data", "missing"),
    ('metric = "top1"', "", "evaluation.metric", "missing"),
    ('formats = ["tflite", "onnx"]', "", f"{PI}.formats", "missing"),
    ('match = "layer3.*"', "", f"{PI}.tflite.rules[0].match", "missing"),
    ('precision = "fp32"', "", f"{PI}.tflite.rules[0].precision", "missing"),
]


@pytest.mark.parametrize(("old", "new", "key", "words"), ERRORS)
def test_one_error_is_one_problem_with_its_key_and_a_remedy(
    file: Path, old: str, new: str, key: str, words: str
) -> None:
    (problem,) = _problems(file, _edited((old, new)))
    assert problem.where == f"edgeship.toml: {key}"
    assert words in str(problem)
    assert problem.remedy


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (SMALLEST.replace("[model.inputs.x]\nshape = [1, 4]", ""), "model.inputs", "no input"),
        (SMALLEST.replace(".x]\nshape = [1, 4]", "]"), "model.inputs", "[model.inputs.<name>]"),
        (SMALLEST.partition("[targets")[0], "targets", "add a table [targets.<name>]"),
        (SMALLEST.partition("[targets")[0] + "[targets]", "targets", "no target is named"),
        ("[targets" + SMALLEST.partition("[targets")[2], "model", "the key is missing"),
        (SMALLEST.replace('"model.onnx"', '"bert"'), "model.onnx", "no such file"),
        (SMALLEST.replace('onnx = "model.onnx"', 'hf = "labels.txt"'), "model.hf", "directory"),
        (
            SMALLEST.replace("[model.inputs", 'weights = "labels.txt"\n[model.inputs'),
            "model.weights",
            "unknown key",
        ),
        (SMALLEST + "onnx = 3", "targets.board.onnx", "expected a table"),
        (SMALLEST + "onnx.rules = 3", "targets.board.onnx.rules", "expected tables"),
        (SMALLEST + "tflite.precisions = ['int8']", "targets.board.tflite", "unknown key"),
    ],
)
def test_one_error_in_the_smallest_project_is_one_problem(
    file: Path, text: str, key: str, words: str
) -> None:
    (problem,) = _problems(file, text)
    assert problem.where == f"edgeship.toml: {key}"
    assert words in str(problem)
    assert problem.remedy


def test_shape_that_fits_two_layouts_must_name_one(file: Path) -> None:
    text = _edited((SHAPE, "[1, 3, 3, 3]"), (SIZE_32, "size = [3, 3]"))
    (problem,) = _problems(file, text)
    assert problem.where == f"edgeship.toml: {IMAGE}.shape"
    assert problem.what == "the shape fits two layouts"
    assert "name the layout" in problem.remedy


def test_wrong_order_of_channels_does_not_blame_mean_and_std_too(file: Path) -> None:
    text = _edited(
        ('"RGB"', '"GREY"'), ("[0.485, 0.456, 0.406]", "[0.5]"), (STD, "[0.5]"), (SHAPE, "[1, 4]")
    )
    (problem,) = _problems(file, text)
    assert problem.where == f"edgeship.toml: {IMAGE}.preprocess.order"


def test_table_of_a_misspelt_format_is_still_checked(file: Path) -> None:
    text = _edited(('"tflite", "onnx"', '"tflit"'), ('"min-max"', '"minmax"'))
    assert [problem.where for problem in _problems(file, text)] == [
        f"edgeship.toml: {PI}.formats",
        f"edgeship.toml: {PI}.tflite.ranges",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_file_below_a_directory_that_may_not_be_read_is_a_problem(file: Path) -> None:
    closed = file.parent / "closed"
    closed.mkdir(mode=0o000)
    (problem,) = _problems(file, _edited(('"data/calib"', '"closed/calib"')))
    assert problem.where == "edgeship.toml: calibration.data"


@pytest.mark.parametrize(
    "content",
    [b"[model", b"a = 1\na = 2", b"\xff", b"a = 1" + b"0" * 5000, b"a = " + b"[" * 10_000],
    ids=["cut", "twice", "not-utf8", "number-without-end", "nested"],
)
def test_what_is_no_toml_is_one_problem_with_the_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="this is no TOML") as caught:
        read_project(file)
    (problem,) = caught.value.problems
    assert problem.where == str(file)
    assert problem.found
    assert problem.remedy


def test_syntax_error_says_its_line(file: Path) -> None:
    (problem,) = _problems(file, "[model]\nname = resnet20")
    assert "line 2" in str(problem)


@pytest.mark.parametrize("name", ["absent.toml", "data", "labels.txt/edgeship.toml"])
def test_file_that_cannot_be_read_is_one_problem(file: Path, name: str) -> None:
    path = file.parent / name
    with pytest.raises(ConfigurationError) as caught:
        read_project(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert problem.what == "the file cannot be read"
    assert problem.remedy


def test_two_dozen_problems_are_all_told_at_once(file: Path) -> None:
    edits = [
        ('name = "resnet20"', "name = 20\ntask = 'detection'\nnmae = 'x'"),
        ("model.py:build", "gone.py:build"),
        ('"resnet20.safetensors"', '"gone.safetensors"'),
        ("shape = [1, 3, 32, 32]", "shape = [2, 3, 32, 32]\nshap = 1\nlayout = 'CHW'"),
        ("size = [32, 32]", "size = [32]"),
        ('"exact"', '"exakt"'),
        ("[0.485, 0.456, 0.406]", "[0.5]"),
        (STD, "[1, 1, 0]"),
        ('"labels.txt"', '"gone.txt"'),
        ('"data/calib"', '"gone/calib"'),
        ("samples = 512", "samples = -1"),
        ('"data/test"', '"gone/test"'),
        ('"top1"', '"top5"'),
        ('["tflite", "onnx"]', '["tflite", "onyx"]'),
        ('["int8"]', '["int9"]'),
        ('"min-max"', '"minmax"'),
        ('precision = "fp32"', 'precision = "fp31"'),
        ('"400 kB"', '"400"'),
        ('"1.0 pt"', '"1.0 ms"'),
        ('"6 ms"', '"6"'),
        ('"64 MB"', "64"),
        ('"device"', '"devise"'),
        ("[evaluation]", "[evalution]\n[evaluation]"),
    ]
    problems = _problems(file, _edited(*edits))
    expected = [
        "model.name",
        "model.task",
        "model.nmae",
        "model.factory",
        "model.weights",
        f"{IMAGE}.shape",
        f"{IMAGE}.shap",
        f"{IMAGE}.layout",
        f"{IMAGE}.preprocess.size",
        f"{IMAGE}.preprocess.resize",
        f"{IMAGE}.preprocess.mean",
        f"{IMAGE}.preprocess.std",
        "model.outputs.labels",
        "calibration.data",
        "calibration.samples",
        "evaluation.data",
        "evaluation.metric",
        f"{PI}.formats",
        f"{PI}.tflite.precisions",
        f"{PI}.tflite.ranges",
        f"{PI}.tflite.rules[0].precision",
        f"{PI}.budget.size",
        f"{PI}.budget.accuracy_drop",
        f"{PI}.budget.latency_p95",
        f"{PI}.budget.memory",
        f"{PI}.budget.evidence",
        "evalution",
    ]
    assert sorted(problem.where for problem in problems) == sorted(
        f"edgeship.toml: {key}" for key in expected
    )


# Any TOML at all. A value that fits nowhere is a problem, never a traceback.

FULL: dict[str, Any] = {
    "model": {
        "name": "resnet20",
        "task": "classification",
        "factory": "model.py:build",
        "weights": "resnet20.safetensors",
        "inputs": {
            "image": {
                "shape": [1, 3, 32, 32],
                "layout": "NCHW",
                "preprocess": {
                    "size": [32, 32],
                    "resize": "exact",
                    "order": "RGB",
                    "mean": [0.5, 0.5, 0.5],
                    "std": [0.5, 0.5, 0.5],
                },
            }
        },
        "outputs": {"labels": "labels.txt"},
    },
    "calibration": {"data": "data/calib", "samples": 512},
    "evaluation": {"data": "data/test", "metric": "top1"},
    "targets": {
        "board": {
            "formats": ["tflite", "onnx"],
            "file": "labels.txt",
            "os": "some",
            "tflite": {
                "precisions": ["int8"],
                "ranges": "min-max",
                "rules": [{"match": "*", "precision": "fp32"}],
            },
            "budget": {
                "size": "400 kB",
                "accuracy_drop": "1.0 pt",
                "latency_p95": "6 ms",
                "memory": "64 MB",
                "evidence": "device",
            },
        }
    },
}


def _paths(value: object, *above: str) -> list[tuple[str, ...]]:
    below = value if isinstance(value, dict) else {}
    return [(*above, key) for key in below] + [
        path for key in below for path in _paths(below[key], *above, key)
    ]


PATHS = [*_paths(FULL), ("model", "program"), ("model", "hf"), ("model", "onnx")]
WORDS = sorted({key for path in PATHS for key in path})
TEXTS = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["off", "device", "model.onnx", "model.py:f", "1 kB", "percentile:", ".."])
    | st.sampled_from(WORDS)
)
KEYS = st.sampled_from(WORDS) | TEXTS
SCALARS = (
    st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400)])
    | st.floats()
    | TEXTS
    | st.dates()
    | st.times()
    | st.datetimes()
)
VALUES = st.recursive(
    SCALARS | st.lists(st.integers(-1, 4) | st.floats(0, 2), max_size=4),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(KEYS, children, max_size=4),
    max_leaves=10,
)


def _toml(value: object) -> str:
    """One TOML value; tables are written inline (TOML 1.0)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(value[key])}" for key in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return repr(value)


def _reads_or_tells(file: Path, root: dict[str, Any]) -> None:
    text = "\n".join(f"{_toml(key)} = {_toml(root[key])}" for key in root)
    file.write_text(text, encoding="utf-8")
    try:
        project = read_project(file)
    except ConfigurationError as error:
        problems = error.problems
    else:
        assert project.targets
        assert project.model.inputs
        return
    assert problems
    assert len(set(problems)) == len(problems)
    assert all(problem.where and problem.remedy for problem in problems)
    assert all(problem.what != "this is no TOML" for problem in problems)


def test_full_project_that_the_properties_start_from_is_right(lasting_file: Path) -> None:
    text = "\n".join(f"{_toml(key)} = {_toml(FULL[key])}" for key in FULL)
    assert _read(lasting_file, text).targets["board"].formats[0].rules


@given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES), min_size=1, max_size=3))
@settings(deadline=None, max_examples=200)
def test_any_value_of_any_known_key_is_read_or_a_configuration_error(
    lasting_file: Path, changes: list[tuple[tuple[str, ...], object]]
) -> None:
    root = copy.deepcopy(FULL)
    for path, value in changes:
        table: Any = root
        for key in path[:-1]:
            table = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table[path[-1]] = copy.deepcopy(value)
    _reads_or_tells(lasting_file, root)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
@settings(deadline=None, max_examples=100)
def test_any_toml_is_read_or_a_configuration_error(
    lasting_file: Path, root: dict[str, object]
) -> None:
    _reads_or_tells(lasting_file, root)


@given(st.sampled_from(PATHS))
@settings(deadline=None)
def test_without_any_one_key_it_is_read_or_a_configuration_error(
    lasting_file: Path, path: tuple[str, ...]
) -> None:
    root = copy.deepcopy(FULL)
    table: Any = root
    for key in path[:-1]:
        table = table[key]
    table.pop(path[-1], None)
    _reads_or_tells(lasting_file, root)
