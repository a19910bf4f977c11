from pathlib import Path

import pytest

from edgeship.exporters.tensorrt.kit.memory import says_out_of_memory
from edgeship.exporters.tensorrt.kit.trtexec_output import (
    is_passed,
    summary_from_lines,
    trace_from_text,
)

GOLDEN = Path(__file__).parent / "data/golden"


def lines_of(name: str) -> list[str]:
    return (GOLDEN / name).read_text().splitlines()


def test_the_summary_of_8_2() -> None:
    found = summary_from_lines(lines_of("trtexec_8.2.txt"))
    assert found.is_passed
    assert not found.is_unstable
    assert found.throughput_qps == 1060.7
    assert found.latency_ms == {
        "min": 0.961,
        "max": 1.52,
        "mean": 0.982,
        "median": 0.979,
        "percentile 99": 1.07,
    }
    assert found.gpu_compute_ms["median"] == 0.949


def test_the_summary_of_8_5_has_several_percentiles_and_a_warning() -> None:
    found = summary_from_lines(lines_of("trtexec_8.5.txt"))
    assert found.is_passed
    assert found.is_unstable
    assert [found.latency_ms[f"percentile {one}"] for one in (50, 90, 95, 99)] == [
        0.979,
        1.01,
        1.03,
        1.07,
    ]


def test_a_failed_run_says_so_and_a_skipped_tactic_is_not_why() -> None:
    lines = lines_of("trtexec_failed.txt")
    assert not summary_from_lines(lines).is_passed
    assert [line for line in lines if says_out_of_memory(line)] == [
        "[11/22/2026-10:00:10] [E] Error[2]: [virtualMemoryBuffer.cpp::resizePhysical::127] "
        "Error Code 2: OutOfMemory (no further information)"
    ]


def test_only_the_last_verdict_counts() -> None:
    assert not is_passed([])
    assert not is_passed(["&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # x"])
    assert not is_passed(["&&&& PASSED TensorRT.trtexec", "&&&& FAILED TensorRT.trtexec"])


def test_the_trace_of_8_2_is_read_without_its_warm_up() -> None:
    found = trace_from_text((GOLDEN / "times_8.2.json").read_text(), 200.0)
    assert found.latency_ms == [1.06, 1.11]
    assert found.compute_ms == [0.95, 1.0]


def test_the_trace_of_8_5_has_no_warm_up() -> None:
    found = trace_from_text((GOLDEN / "times_8.5.json").read_text(), 5000.0)
    assert found.latency_ms == [1.1, 1.4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no query"),
        ("{}", "no list"),
        ("[1]", "no object"),
        ('[{"latencyMs": 1}]', "computeMs"),
        ("[", "Expecting"),
    ],
)
def test_what_is_no_trace_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace_from_text(text, 0)
