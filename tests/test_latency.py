import json

import pytest

from edgeship.latency import Latency, MemoryUse, Work

LATENCY = Latency(
    p50_ms=4.0,
    p90_ms=4.5,
    p95_ms=5.0,
    p99_ms=6.0,
    p95_ci95_ms=(4.9, 5.2),
    cold_ms=20.0,
    load_ms=30.0,
    sustained_p95_ms=5.5,
    queries=12000,
    duration_s=60.0,
    warm_up_queries=150,
    threads=4,
    governor=("performance",),
    frequency_khz=(1500000, 1500000),
    temperature_c=(45.2, 61.8),
    is_valid=False,
    reasons=("throttled: under-voltage at 61 s",),
)
EMPTY = Latency(
    **{
        **vars(LATENCY),
        "p95_ci95_ms": None,
        "sustained_p95_ms": None,
        "governor": (),
        "frequency_khz": None,
        "temperature_c": None,
        "is_valid": True,
        "reasons": (),
    }
)
WORK = Work(instructions=114200000, spread=(114199000, 114290000), inferences=11, cpu="cortex-a72")


@pytest.mark.parametrize("value", [LATENCY, EMPTY, WORK, MemoryUse(peak_bytes=9, imported_bytes=4)])
def test_a_measurement_comes_back_from_json(value: Latency | MemoryUse | Work) -> None:
    text = json.dumps(value.to_json(), allow_nan=False)
    assert type(value).from_json(json.loads(text)) == value


def test_the_model_takes_what_came_after_the_import() -> None:
    assert MemoryUse(peak_bytes=90, imported_bytes=30).used_bytes == 60


def test_a_process_that_never_grew_takes_nothing() -> None:
    assert MemoryUse(peak_bytes=30, imported_bytes=31).used_bytes == 0
