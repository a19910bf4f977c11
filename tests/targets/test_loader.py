import tomllib
from pathlib import Path

import pytest

from edgeship.errors import ConfigurationError, UnknownName
from edgeship.targets import RuntimeFact, load_target, target_names
from edgeship.targets.target import Runtime
from edgeship.vocabulary import Format

ROW = """\
name = "gateway"
board = "A gateway of ours"
memory_bytes = "512 MB"

[cpu]
arch = "aarch64"
cores = "2 x Cortex-A55"
features = ["asimddp"]

[gpu]
sm = "8.7"
dla = 0
precisions = ["fp16", "int8"]

[os.old]
image = "Old"
python = "3.8"
tensorrt = "8.5.2"

[os.old.formats.onnx]
precisions = []
reason = "too old"

[os.new]
default = true
image = "New"
python = "3.11"
glibc = "2.36"
tensorrt = "10.3.0"
page_size = 4096

[emulate]
qemu_cpu = "cortex-a55"
memory = "512M"

[formats.onnx]
precisions = ["int8"]
runtimes = [{ name = "onnxruntime", version = "1.31.1" }]
activation_type = "uint8"
reduce_range = false

[formats.tensorrt]
precisions = ["kit"]

[[source]]
key = "cpu"
url = "https://example.org/datasheet"
"""


def write_row(directory: Path, text: str) -> Path:
    file = directory / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems_of(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_target("gateway", file=write_row(directory, text))
    return [str(problem) for problem in caught.value.problems]


def test_a_file_of_the_project_is_a_target(tmp_path: Path) -> None:
    target = load_target("gateway", file=write_row(tmp_path, ROW))
    assert target.memory_bytes == 512_000_000
    assert target.cpu.features == ("asimddp",)
    assert target.os.id == "new"
    assert target.os_choices == ("old", "new")
    assert target.formats[Format.ONNX].runtimes == (
        RuntimeFact(name=Runtime.ONNXRUNTIME, version="1.31.1"),
    )
    assert target.sources[0].key == "cpu"


def test_an_os_image_may_state_a_format_anew(tmp_path: Path) -> None:
    target = load_target("gateway", os="old", file=write_row(tmp_path, ROW))
    assert target.formats[Format.ONNX].precisions == ()
    assert target.formats[Format.ONNX].reason == "too old"


def test_the_tensorrt_runtime_is_that_of_the_chosen_image(tmp_path: Path) -> None:
    file = write_row(tmp_path, ROW)
    versions = {
        os: load_target("gateway", os=os, file=file).formats[Format.TENSORRT].runtimes
        for os in ("old", "new")
    }
    assert versions["old"] == (RuntimeFact(name=Runtime.TENSORRT, version="8.5.2"),)
    assert versions["new"] == (RuntimeFact(name=Runtime.TENSORRT, version="10.3.0"),)


def test_a_format_that_a_row_does_not_name_is_taken_by_nobody_and_says_so(tmp_path: Path) -> None:
    facts = load_target("gateway", file=write_row(tmp_path, ROW)).formats[Format.GGUF]
    assert facts.precisions == ()
    assert facts.reason == "the row of this board has no [formats.gguf]"


def test_an_unknown_target_names_the_closest_one() -> None:
    with pytest.raises(UnknownName) as caught:
        load_target("raspbery-pi-4")
    assert caught.value.kind == "target"
    assert caught.value.choices == target_names()
    assert "did you mean 'raspberry-pi-4'?" in str(caught.value)


def test_a_path_is_no_target() -> None:
    with pytest.raises(UnknownName):
        load_target("../catalogue/raspberry-pi-4")


def test_an_unknown_os_image_names_those_of_the_row() -> None:
    with pytest.raises(UnknownName) as caught:
        load_target("jetson-orin-nano", os="jetpack-8")
    assert caught.value.kind == "OS image"
    assert caught.value.choices == ("jetpack-5", "jetpack-6", "jetpack-7")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.toml: the file cannot be read"):
        load_target("gateway", file=tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            'cores = "2 x Cortex-A55"',
            'cores = "2 x Cortex-A55"\ncoers = 2',
            "gateway.toml: cpu.coers: unknown key 'coers': expected arch, cores, features; "
            "did you mean 'cores'?",
        ),
        ('board = "A gateway of ours"\n', "", "gateway.toml: board: the key is missing; add it"),
        ('arch = "aarch64"\n', "", "gateway.toml: cpu.arch: the key is missing; add it"),
        ('features = ["asimddp"]\n', "", "gateway.toml: cpu.features: the key is missing; add it"),
        (
            'arch = "aarch64"',
            'arch = "arm64"',
            "gateway.toml: cpu.arch: unknown arch 'arm64': expected aarch64, armv7l, x86_64; "
            "did you mean 'aarch64'?",
        ),
        (
            "[os.old]",
            "[os.old]\ndefault = true",
            "gateway.toml: os: one OS image has to be the default: expected default = true in "
            "exactly one of [os.<id>], found old, new; add the key, or take it from the others",
        ),
        (
            "default = true\n",
            "",
            "gateway.toml: os: one OS image has to be the default: expected default = true in "
            "exactly one of [os.<id>], found none; add the key, or take it from the others",
        ),
        (
            'python = "3.11"',
            "python = 3.11",
            "gateway.toml: os.new.python: the value is of another kind: expected text, "
            "found 3.11; change the value",
        ),
        (
            'glibc = "2.36"',
            'glibc = "glibc 2.36"',
            "gateway.toml: os.new.glibc: this is no version: expected numbers with dots between "
            "them, like \"3.11\", found 'glibc 2.36'; write the version as text",
        ),
        (
            'precisions = ["int8"]',
            'precisions = ["int4"]',
            "gateway.toml: formats.onnx.precisions: unknown onnx precision 'int4': "
            "expected fp32, fp16, int8, dynamic; did you mean 'int8'?",
        ),
        (
            'precisions = ["fp16", "int8"]',
            'precisions = ["fp16", "fp8"]',
            "gateway.toml: gpu.precisions: no engine is built in this precision: "
            "expected some of fp16, int8, found fp16, fp8; name only these",
        ),
        (
            "[formats.tensorrt]",
            "[formats.tensort]",
            "gateway.toml: formats.tensort: unknown format 'tensort': "
            "expected onnx, tflite, gguf, tensorrt; did you mean 'tensorrt'?",
        ),
        (
            'name = "onnxruntime"',
            'name = "litert"',
            "gateway.toml: formats.onnx.runtimes[0].name: this runtime loads no onnx: "
            "expected onnxruntime, found litert; name one that does",
        ),
        (
            'runtimes = [{ name = "onnxruntime", version = "1.31.1" }]\n',
            "",
            "gateway.toml: formats.onnx.runtimes: no runtime loads these precisions: "
            "expected [{ name, version }]; name one, or no precision and the reason",
        ),
        (
            "reduce_range = false\n",
            "",
            "gateway.toml: formats.onnx.reduce_range: the key is missing; add it",
        ),
        (
            'reason = "too old"\n',
            "",
            "gateway.toml: os.old.formats.onnx.reason: no precision is a default, and no reason "
            "is given; say why the board takes none of this format, or name a precision",
        ),
        (
            'tensorrt = "8.5.2"\n',
            "",
            "gateway.toml: os.old.tensorrt: the board takes TensorRT, this image has none; "
            "add the key",
        ),
        (
            'memory = "512M"',
            'memory = "512 MB"',
            "gateway.toml: emulate.memory: QEMU takes no such memory: expected a number with M "
            "or G, like \"4096M\", found '512 MB'; write it as QEMU's -m",
        ),
        (
            'name = "gateway"',
            'name = "getaway"',
            "gateway.toml: name: the row has another name than the target: "
            "expected 'gateway', found 'getaway'; rename one of them",
        ),
        (
            'url = "https://example.org/datasheet"',
            "",
            "gateway.toml: source[0].url: the key is missing; add it",
        ),
    ],
)
def test_a_bad_row_is_refused_with_file_and_key(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in ROW
    assert problems_of(tmp_path, ROW.replace(old, new, 1)) == [problem]


def test_tensorrt_without_a_gpu_is_refused(tmp_path: Path) -> None:
    text = ROW[: ROW.index("[gpu]")] + ROW[ROW.index("[os.old]") :]
    assert problems_of(tmp_path, text) == [
        "gateway.toml: gpu: the board takes TensorRT, it has no GPU; add [gpu]",
    ]


def test_a_runtime_of_the_tensorrt_row_is_refused_for_it_belongs_to_the_image(
    tmp_path: Path,
) -> None:
    text = ROW.replace('precisions = ["kit"]', 'precisions = ["kit"]\nruntimes = []')
    (problem,) = problems_of(tmp_path, text)
    assert problem.startswith("gateway.toml: formats.tensorrt.runtimes: unknown key 'runtimes'")


def test_all_problems_of_a_row_come_at_once(tmp_path: Path) -> None:
    text = (
        ROW.replace('"512 MB"', '"much"')
        .replace("page_size = 4096", 'page_size = "4 KB"')
        .replace('precisions = ["int8"]', 'precisions = ["int4"]')
        .replace('qemu_cpu = "cortex-a55"\n', "")
        .replace("[[source]]", "[network]\n\n[[source]]")
    )
    assert sorted(problem.split(": ")[1] for problem in problems_of(tmp_path, text)) == [
        "emulate.qemu_cpu",
        "formats.onnx.precisions",
        "memory_bytes",
        "network",
        "os.new.page_size",
    ]


def test_an_empty_row_names_each_table_that_it_needs(tmp_path: Path) -> None:
    keys = [problem.split(": ")[1] for problem in problems_of(tmp_path, "")]
    assert keys == ["name", "board", "memory_bytes", "cpu", "os", "formats"]


def test_the_row_of_these_tests_is_toml() -> None:
    assert tomllib.loads(ROW)["name"] == "gateway"
