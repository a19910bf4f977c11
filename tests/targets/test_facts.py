import json
from dataclasses import replace

import pytest

from edgeship.targets import load_target, target_facts, target_names
from edgeship.vocabulary import Format


@pytest.mark.parametrize("name", target_names())
@pytest.mark.parametrize("format", list(Format))
def test_facts_are_json(name: str, format: Format) -> None:
    facts = target_facts(load_target(name), format)
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("format", list(Format))
def test_facts_do_not_depend_on_name_memory_sources_and_default_precisions(format: Format) -> None:
    target = load_target("jetson-orin-nano")
    facts = {key: replace(value, precisions=()) for key, value in target.formats.items()}
    other = replace(target, name="x", board="y", memory_bytes=1, sources=(), formats=facts)
    assert target_facts(other, format) == target_facts(target, format)


def test_boards_without_dotprod_share_the_files_of_onnx() -> None:
    one, other = load_target("raspberry-pi-4"), load_target("cortex-a53")
    assert target_facts(one, Format.ONNX) == target_facts(other, Format.ONNX)


def test_dotprod_is_another_fact_of_onnx_and_of_gguf() -> None:
    old, new = load_target("raspberry-pi-4"), load_target("raspberry-pi-5")
    assert target_facts(old, Format.ONNX) != target_facts(new, Format.ONNX)
    assert target_facts(old, Format.GGUF) != target_facts(new, Format.GGUF)


def test_weights_in_7_bits_are_another_fact() -> None:
    arm, x86 = load_target("raspberry-pi-4"), load_target("linux-x86-64")
    assert target_facts(arm, Format.ONNX)["reduce_range"] is False
    assert target_facts(x86, Format.ONNX)["reduce_range"] is True


def test_another_jetpack_is_another_fact_of_tensorrt() -> None:
    old = load_target("jetson-orin-nano", os="jetpack-5")
    new = load_target("jetson-orin-nano", os="jetpack-6")
    assert target_facts(old, Format.TENSORRT) != target_facts(new, Format.TENSORRT)
