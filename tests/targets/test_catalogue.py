import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeship.targets
from edgeship.targets import Runtime, Target, load_target, target_names
from edgeship.vocabulary import PRECISIONS, Format

CATALOGUE = Path(edgeship.targets.__file__).parent / "catalogue"
NAMES = (
    "android-arm64",
    "cortex-a53",
    "jetson-agx-xavier",
    "jetson-nano",
    "jetson-orin-nano",
    "linux-x86-64",
    "raspberry-pi-4",
    "raspberry-pi-5",
)
TARGETS = [load_target(name, os=os) for name in NAMES for os in load_target(name).os_choices]

each_row = pytest.mark.parametrize("name", NAMES)
each_target = pytest.mark.parametrize(
    "target", TARGETS, ids=[f"{target.name}-{target.os.id}" for target in TARGETS]
)


def rows(name: str) -> dict[str, object]:
    return tomllib.loads((CATALOGUE / f"{name}.toml").read_text(encoding="utf-8"))


def leaves(value: object, path: str = "") -> Iterator[str]:
    """Dotted keys of everything that is no table; an array is one fact."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}" if path else key)
    else:
        yield path


def is_fact(key: str) -> bool:
    """All but the row's own name, its choice of a default image, and the sources."""
    return key not in ("name", "source") and not (
        key.startswith("os.") and key.endswith(".default")
    )


def is_below(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_the_catalogue_has_these_rows() -> None:
    assert target_names() == NAMES


@each_row
def test_every_fact_of_a_row_has_a_source(name: str) -> None:
    keys = [source.key for source in load_target(name).sources]
    facts = [key for key in leaves(rows(name)) if is_fact(key)]
    assert [fact for fact in facts if not any(is_below(fact, key) for key in keys)] == []


@each_row
def test_every_source_of_a_row_is_of_a_fact(name: str) -> None:
    facts = [key for key in leaves(rows(name)) if is_fact(key)]
    keys = [source.key for source in load_target(name).sources]
    assert [key for key in keys if not any(is_below(fact, key) for fact in facts)] == []
    assert len(keys) == len(set(keys))


@each_row
def test_a_source_without_address_says_what_is_known_instead(name: str) -> None:
    for source in load_target(name).sources:
        if not source.url.startswith(("https://", "package ")):
            assert source.url in ("measured", "assumption", "not looked up")
            assert source.note is not None, source.key


@each_row
def test_a_row_states_every_format(name: str) -> None:
    formats = rows(name)["formats"]
    assert isinstance(formats, dict)
    assert sorted(formats) == sorted(Format)


@each_row
def test_one_os_image_of_a_row_is_the_default(name: str) -> None:
    images = rows(name)["os"]
    assert isinstance(images, dict)
    assert [id_ for id_ in images if images[id_].get("default")] == [load_target(name).os.id]


@each_target
def test_default_precisions_are_of_the_vocabulary(target: Target) -> None:
    for format in Format:
        assert set(target.formats[format].precisions) <= set(PRECISIONS[format])


@each_target
def test_what_a_board_takes_has_a_runtime_and_what_it_does_not_a_reason(target: Target) -> None:
    for facts in target.formats.values():
        assert facts.runtimes if facts.precisions else facts.reason


@each_target
def test_only_a_jetson_takes_tensorrt_and_its_version_is_that_of_the_image(target: Target) -> None:
    facts = target.formats[Format.TENSORRT]
    is_jetson = target.name.startswith("jetson-")
    assert facts.precisions == (("kit",) if is_jetson else ())
    assert [runtime.version for runtime in facts.runtimes] == (
        [target.os.tensorrt] if is_jetson else []
    )


# GLIBC symbol versions that the shared objects of the wheels need at most, by readelf -V of
# 2026-11, for aarch64; those for x86_64 need no more.
GLIBC_NEEDED = {
    (Runtime.ONNXRUNTIME, "1.10.0"): "2.17",
    (Runtime.ONNXRUNTIME, "1.19.2"): "2.27",
    (Runtime.ONNXRUNTIME, "1.23.2"): "2.27",
    (Runtime.ONNXRUNTIME, "1.31.1"): "2.28",
    (Runtime.LITERT, "2.3.0"): "2.34",
    (Runtime.TFLITE_RUNTIME, "2.13.0"): "2.27",
    (Runtime.TFLITE_RUNTIME, "2.14.0"): "2.34",  # by its tag, which pip goes by
}
# Versions of CPython for which pip found an aarch64 wheel on PyPI in 2026-11; others not asked.
PYTHONS_OF_WHEELS = {
    (Runtime.ONNXRUNTIME, "1.10.0"): ("3.6", "3.8"),
    (Runtime.ONNXRUNTIME, "1.19.2"): ("3.8", "3.10", "3.11", "3.12"),
    (Runtime.ONNXRUNTIME, "1.23.2"): ("3.10", "3.11", "3.12"),
    (Runtime.ONNXRUNTIME, "1.31.1"): ("3.11", "3.12", "3.13"),
    (Runtime.LITERT, "2.3.0"): ("3.10", "3.11", "3.12", "3.13"),
    (Runtime.TFLITE_RUNTIME, "2.13.0"): ("3.8", "3.10"),
    (Runtime.TFLITE_RUNTIME, "2.14.0"): ("3.8", "3.10", "3.11"),
}


@pytest.mark.parametrize(
    "target",
    [target for target in TARGETS if target.os.python is not None],
    ids=lambda target: f"{target.name}-{target.os.id}",
)
def test_a_python_runtime_has_a_wheel_that_fits_the_image(target: Target) -> None:
    for format in (Format.ONNX, Format.TFLITE):
        for runtime in target.formats[format].runtimes:
            wheel = (runtime.name, runtime.version)
            assert target.os.glibc is not None
            assert target.os.python in PYTHONS_OF_WHEELS[wheel], wheel
            assert numbers(GLIBC_NEEDED[wheel]) <= numbers(target.os.glibc), wheel


def test_gguf_is_q4_0_where_the_cpu_has_no_dotprod_and_no_gpu_helps() -> None:
    for target in TARGETS:
        (precision,) = target.formats[Format.GGUF].precisions
        has_kernels = "asimddp" in target.cpu.features or "avx2" in target.cpu.features
        has_cuda = target.gpu is not None and numbers(target.os.tensorrt or "0.0") >= (8, 5)
        assert precision == ("q4_k_m" if has_kernels or has_cuda else "q4_0"), target.name


def test_weights_have_7_bits_only_where_x86_has_no_vnni() -> None:
    for target in TARGETS:
        facts = target.formats[Format.ONNX]
        assert facts.reduce_range == (target.cpu.arch == "x86_64")


def test_activations_are_int8_where_the_cpu_has_dotprod() -> None:
    """As instructions were counted on emulated CPUs with and without it."""
    for target in TARGETS:
        has_dotprod = "asimddp" in target.cpu.features
        expected = "int8" if has_dotprod else "uint8"
        assert target.formats[Format.ONNX].activation_type == expected, target.name


def test_the_jetson_nano_builds_no_int8_engine_and_says_why() -> None:
    nano = load_target("jetson-nano")
    assert nano.gpu is not None
    assert nano.gpu.precisions == ("fp16",)
    assert "INT8" in (nano.formats[Format.TENSORRT].reason or "")
