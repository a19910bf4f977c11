import json
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import edgeship.targets
from edgeship.errors import ConfigurationError
from edgeship.targets import Target, load_target, target_names
from edgeship.targets.tensorrt_facts import tensorrt_facts
from edgeship.targets.tensorrt_operators import operator_table
from edgeship.vocabulary import Format

TABLES = Path(edgeship.targets.__file__).parent / "tensorrt"
ROWS = tomllib.loads((TABLES / "versions.toml").read_text(encoding="utf-8"))["version"]
JETSONS = [
    load_target(name, os=os)
    for name in target_names()
    if load_target(name).formats[Format.TENSORRT].precisions
    for os in load_target(name).os_choices
]


def with_version(version: str | None, name: str = "jetson-orin-nano") -> Target:
    target = load_target(name)
    return replace(target, os=replace(target.os, tensorrt=version))


@pytest.mark.parametrize("target", JETSONS, ids=[f"{one.name}-{one.os.id}" for one in JETSONS])
def test_every_jetson_of_the_catalogue_has_facts(target: Target) -> None:
    facts = tensorrt_facts(target)
    assert facts.version == target.os.tensorrt
    assert ".".join(map(str, facts.python)) == target.os.python
    assert facts.opset <= facts.opset_max
    assert operator_table(facts.operators).types


@pytest.mark.parametrize(
    ("version", "opset", "opset_max", "is_typed"),
    [
        ("8.0.1", 13, 13, False),
        ("8.2.1", 13, 13, False),
        ("8.4.1", 13, 17, False),
        ("8.5.2", 13, 17, False),
        ("8.6.2", 17, 17, False),
        ("10.3.0", 17, 20, False),
        ("10.7.0", 17, 20, False),
        ("10.13.3", 19, 24, True),
        ("10.16.1", 19, 24, True),
        ("11.4.1", 19, 24, True),
    ],
)
def test_opset_and_typing_follow_the_version(
    version: str, opset: int, opset_max: int, is_typed: bool
) -> None:
    facts = tensorrt_facts(with_version(version))
    assert (facts.opset, facts.opset_max, facts.is_strongly_typed) == (opset, opset_max, is_typed)


def test_the_nano_has_no_int8_and_says_why() -> None:
    facts = tensorrt_facts(load_target("jetson-nano"))
    assert not facts.has_int8
    assert facts.int8_reason is not None
    assert "5.3" in facts.int8_reason
    assert "Jetson Nano" in facts.int8_reason


def test_int8_is_absent_where_the_row_of_the_gpu_does_not_say_it() -> None:
    target = load_target("jetson-orin-nano")
    assert target.gpu is not None
    facts = tensorrt_facts(replace(target, gpu=replace(target.gpu, precisions=("fp16",))))
    assert not facts.has_int8
    assert facts.int8_reason is not None


def test_int8_is_absent_on_such_a_gpu_whatever_its_row_says() -> None:
    target = load_target("jetson-nano")
    assert target.gpu is not None
    facts = tensorrt_facts(replace(target, gpu=replace(target.gpu, precisions=("fp16", "int8"))))
    assert not facts.has_int8


@pytest.mark.parametrize(("version", "is_derived"), [("8.5.2", False), ("10.3.0", True)])
def test_derived_facts_are_marked(version: str, is_derived: bool) -> None:
    facts = tensorrt_facts(with_version(version))
    assert facts.is_derived is is_derived
    assert bool(facts.notes) is is_derived
    assert all(version in note and facts.source in note for note in facts.notes)


@pytest.mark.parametrize("version", ["7.1.3", "12.0.0"])
def test_an_unknown_version_is_refused(version: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"expected 8\.0 to 11\.x, found {version}"):
        tensorrt_facts(with_version(version))


def test_a_board_without_tensorrt_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no TensorRT under os"):
        tensorrt_facts(with_version(None))
    with pytest.raises(ConfigurationError, match="has no GPU"):
        tensorrt_facts(load_target("raspberry-pi-4"))


def test_python_is_that_of_the_image_and_else_of_the_jetpack() -> None:
    target = with_version("8.5.2")
    assert tensorrt_facts(replace(target, os=replace(target.os, python="3.9"))).python == (3, 9)
    assert tensorrt_facts(replace(target, os=replace(target.os, python=None))).python == (3, 8)


def test_rows_are_in_order_and_say_what_they_rest_on() -> None:
    firsts = [tuple(map(int, row["from"].split("."))) for row in ROWS]
    assert firsts == sorted(set(firsts))
    assert {row["basis"] for row in ROWS} == {"exact", "derived"}
    assert all(row["source"] for row in ROWS)


def test_a_row_that_was_read_has_a_table_that_was_read() -> None:
    for row in ROWS:
        if row["basis"] == "exact":
            assert not operator_table(row["operators"]).is_derived
            assert row["operators"] == row["from"]


def test_derived_tables_are_those_they_rest_on_but_for_what_changelogs_say() -> None:
    old, new = operator_table("10.1"), operator_table("10.3")
    assert new.types == old.types
    assert operator_table("10.15").types.keys() - operator_table("10.13").types.keys() == {
        *("Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter")
    }
    assert operator_table("11.0").types.keys() - operator_table("10.15").types.keys() == {"Swish"}
    assert all(operator_table(name).is_derived for name in ("10.3", "10.13", "11.0"))


def test_operators_only_become_more() -> None:
    tables = [operator_table(name) for name in ("8.2", "8.4", "8.5", "8.6", "10.0", "10.1")]
    tables.append(operator_table("10.15"))
    for old, new in pairwise(tables):
        assert old.types.keys() <= new.types.keys()


def test_the_parser_learns_layer_normalization_with_8_6() -> None:
    assert "LayerNormalization" not in operator_table("8.5").types
    assert operator_table("8.6").types["LayerNormalization"] == {"FP32", "FP16"}


def test_restrictions_are_those_of_the_version() -> None:
    def asked(name: str) -> set[str]:
        return {
            operator
            for restriction in operator_table(name).restrictions
            for operator in restriction.operators
            if restriction.constant
        }

    assert {"Conv", "TopK"} <= asked("8.4")
    assert "ReduceMean" not in asked("8.5")
    assert "ReduceMean" in asked("10.3")
    assert "Slice" not in asked("10.3")


def test_types_are_named_as_onnx_names_them() -> None:
    from onnx import TensorProto

    names = set(TensorProto.DataType.keys())
    content = json.loads((TABLES / "operators.json").read_text(encoding="utf-8"))
    for name in (*content["read"], *content["derived"]):
        assert operator_table(name).data_types <= names
