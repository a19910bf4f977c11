import itertools
from types import SimpleNamespace

import pytest

from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import Numbers, numbers
from edgeship.exporters.tensorrt.kit.trtexec import (
    Settings,
    bench_command,
    build_command,
    load_inputs,
)

VERSIONS = ["8.2", "8.5", "8.6", "10.3", "10.13", "10.16", "11.1"]
FP16 = {"fp16": True, "int8": False, "strongly_typed": False}
INT8 = {"fp16": True, "int8": True, "strongly_typed": False}
TYPED = {"fp16": False, "int8": False, "strongly_typed": True}
SETTINGS = Settings(warm_up_ms=2000, duration_s=10, iterations=100)


def building(version: Numbers, flags: dict[str, bool]) -> list[str]:
    return build_command(
        "trtexec",
        version,
        onnx="int8.onnx",
        engine="int8.plan",
        timing_cache="timing.cache",
        workspace_mib=512,
        flags=flags,
    )


def measuring(version: Numbers) -> list[str]:
    return bench_command(
        "trtexec",
        version,
        engine="int8.plan",
        inputs={"image": "input0.bin"},
        times="times.json",
        settings=SETTINGS,
    )


def name_of(option: str) -> str:
    return option.partition("=")[0]


def rejected(kits: SimpleNamespace, version: str, arguments: list[str]) -> set[str]:
    """Options that the parser of a release leaves over."""
    known: set[str] = kits.known_options(version)
    return {name_of(one) for one in arguments} - known


@pytest.mark.parametrize("version", VERSIONS)
def test_the_names_of_a_source_predict_what_its_parser_said(
    kits: SimpleNamespace, version: str
) -> None:
    facts = kits.recorded()
    named = set(facts["versions"][version]["options"])
    for case in facts["cases"]:
        if "INVALID" not in case["result"][version]:  # there it stops before it looks for leftovers
            unknown = kits.unknown_to(version, case)
            missed = {"--int8"} & set(case["args"]) if version == "11.1" else set()
            # the source of 11.1 still has the word, and the parser does not read it
            assert {name_of(one) for one in case["args"]} - named == unknown - missed, case["case"]
            assert rejected(kits, version, case["args"]) == unknown, case["case"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_line_is_accepted_by_the_parser_of_its_version(
    kits: SimpleNamespace, version: str
) -> None:
    lines = [measuring(numbers(version))]
    is_typed = version.startswith("11")
    can_be_typed = not version.startswith("8")
    lines += [building(numbers(version), one) for one in ([] if is_typed else [FP16, INT8])]
    lines += [building(numbers(version), TYPED)] if can_be_typed else []
    for line in lines:
        assert not rejected(kits, version, line[1:]), line


@pytest.mark.parametrize("version", VERSIONS)
def test_every_option_was_in_a_line_that_the_parser_took(
    kits: SimpleNamespace, version: str
) -> None:
    accepted = {
        name_of(argument)
        for case in kits.recorded()["cases"]
        if case["result"][version] == "ACCEPT"
        for argument in case["args"]
    }
    flags = FP16 if version.startswith("8") else TYPED
    lines = building(numbers(version), flags)[1:] + measuring(numbers(version))[1:]
    unproven = {name_of(one) for one in lines} - accepted
    # no recorded line has it; it stands in that release's source beside --noSpinWait's opposite
    assert unproven <= {"--noSpinWait", "--streams", "--infStreams"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_is_measured_on_every_version(version: str) -> None:
    line = measuring(numbers(version))
    assert {"--warmUp=2000", "--duration=10", "--iterations=100"} <= set(line)
    assert not {"--noDataTransfers", "--useCudaGraph", "--useSpinWait"} & set(line)
    said = {"--includeDataTransfers", "--noCudaGraph", "--noSpinWait"} & set(line)
    assert len(said) == (3 if version.startswith("11") else 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_int8_is_asked_for_only_by_a_graph_that_is_for_it(version: str) -> None:
    for flags in (FP16, INT8, TYPED):
        try:
            line = building(numbers(version), flags)
        except Stopped:
            continue
        assert ("--int8" in line) == flags["int8"]
        assert "--best" not in line
        assert not any(one.startswith("--calib") for one in line)


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        *itertools.product(["8.2", "8.5", "8.6"], [TYPED]),
        *itertools.product(["11.1"], [FP16, INT8]),
    ],
)
def test_a_graph_of_the_other_typing_is_refused(version: str, flags: dict[str, bool]) -> None:
    with pytest.raises(Stopped) as caught:
        building(numbers(version), flags)
    assert caught.value.outcome == "incompatible"
    assert version in caught.value.message


def test_the_workspace_is_in_mib_everywhere() -> None:
    assert "--workspace=512" in building((8, 2, 1), FP16)
    assert "--memPoolSize=workspace:512M" in building((10, 3, 0), FP16)


@pytest.mark.parametrize("name", ["a:b", "a,b", "it's"])
def test_inputs_that_trtexec_would_read_as_others_are_refused(name: str) -> None:
    assert load_inputs({"ids": "0.bin", "mask": "1.bin"}) == "ids:0.bin,mask:1.bin"
    with pytest.raises(Stopped, match="trtexec cannot be given"):
        load_inputs({name: "0.bin"})
