from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.artifact import ArtifactFile, Manifest, Requirements, RuntimeNeed
from edgeship.budget import (
    Budget,
    Judgement,
    worst_exit_code,
    worst_verdict,
)
from edgeship.contract import Contract
from edgeship.errors import ExitCode
from edgeship.evidence import Evidence
from edgeship.judging import judge_artifact
from edgeship.latency import Latency, MemoryUse
from edgeship.measurements import ClassShare, Failure
from edgeship.vocabulary import Format, Metric, Place, Role, Rung, Verdict

NAN = float("nan")
PERFECT = {
    Metric.TOP1: 0.8,
    Metric.REFERENCE_TOP1: 0.8,
    Metric.AGREEMENT: 1.0,
    Metric.COSINE_MEAN: 1.0,
}


def _evidence(metrics: dict[Metric, float], *, place: Place = Place.HOST) -> Evidence:
    return Evidence(
        rung=Rung.MATCHES,
        place=place,
        stand_in=False,
        where={},
        metrics=metrics,
        samples=2000,
        ci95=None,
        data_sha256="0" * 64,
        command="edgeship build",
        at="2026-01-01T00:00:00Z",
    )


def _manifest(
    *evidence: Evidence, model_bytes: tuple[int, ...] = (1000,), golden_bytes: int = 0
) -> Manifest:
    files = [(Role.MODEL, count) for count in model_bytes] + [(Role.GOLDEN, golden_bytes)]
    return Manifest(
        edgeship="0.1.0",
        target="board",
        format=Format.ONNX,
        precision="int8",
        files=tuple(
            ArtifactFile(name=f"file-{index}", role=role, bytes=count, sha256="0" * 64)
            for index, (role, count) in enumerate(files)
        ),
        source={},
        tools={},
        contract=Contract(inputs=(), outputs=()),
        requires=Requirements(any_of=()),
        evidence=evidence,
    )


def _judge(
    metrics: dict[Metric, float], *, metric: str = "top1", budget: Budget | None = None
) -> dict[str, Judgement]:
    manifest = _manifest(_evidence(PERFECT | metrics))
    judgements = judge_artifact(manifest, budget or Budget(), metric=metric)
    return {judgement.quantity: judgement for judgement in judgements}


def _verdicts(judgements: dict[str, Judgement]) -> dict[str, Verdict]:
    return {quantity: judgement.verdict for quantity, judgement in judgements.items()}


@st.composite
def _counts(draw: st.DrawFn) -> tuple[int, int, int]:
    samples = draw(st.integers(1, 10_000))
    return samples, draw(st.integers(0, samples)), draw(st.integers(0, samples))


@given(_counts())
@settings(deadline=None)
def test_default_gate_is_one_point_of_top1_counted_exactly(counts: tuple[int, int, int]) -> None:
    samples, reference, correct = counts
    judged = _judge({Metric.REFERENCE_TOP1: reference / samples, Metric.TOP1: correct / samples})
    is_held = 100 * (reference - correct) <= samples
    assert judged["accuracy"].verdict is (Verdict.PASS if is_held else Verdict.FAIL)
    assert judged["accuracy"].exit_code is (ExitCode.OK if is_held else ExitCode.ACCURACY)


@given(_counts(), st.sampled_from(["top1", "agreement"]))
@settings(deadline=None)
def test_default_gate_on_agreement_is_95_percent_counted_exactly(
    counts: tuple[int, int, int], metric: str
) -> None:
    samples, agreeing, _ = counts
    judged = _judge({Metric.AGREEMENT: agreeing / samples}, metric=metric)
    is_held = 100 * agreeing >= 95 * samples
    assert judged["agreement"].verdict is (Verdict.PASS if is_held else Verdict.FAIL)


@pytest.mark.parametrize(
    ("cosine", "verdict"),
    [(1.0, Verdict.PASS), (0.99, Verdict.PASS), (0.9899, Verdict.FAIL), (NAN, Verdict.FAIL)],
)
def test_default_gate_on_cosine_is_99_hundredths(cosine: float, verdict: Verdict) -> None:
    judged = _judge({Metric.COSINE_MEAN: cosine}, metric="cosine")
    assert _verdicts(judged) == {"cosine_mean": verdict}


def test_default_gates_of_top1_are_its_drop_and_the_agreement() -> None:
    assert _verdicts(_judge({})) == {"accuracy": Verdict.PASS, "agreement": Verdict.PASS}


def test_better_than_the_reference_passes() -> None:
    assert _judge({Metric.TOP1: 0.9})["accuracy"].verdict is Verdict.PASS


@pytest.mark.parametrize("metric", ["top1", "agreement", "cosine"])
@pytest.mark.parametrize("drop", [None, 0.5])
def test_a_metric_that_is_no_number_never_passes(metric: str, drop: float | None) -> None:
    judged = _judge(dict.fromkeys(PERFECT, NAN), metric=metric, budget=Budget(accuracy_drop=drop))
    assert set(_verdicts(judged).values()) == {Verdict.FAIL}


@pytest.mark.parametrize(
    ("metric", "metrics"),
    [
        ("top1", {Metric.REFERENCE_TOP1: 0.8103, Metric.TOP1: 0.7603, Metric.AGREEMENT: 0.5}),
        ("agreement", {Metric.AGREEMENT: 0.95}),
        ("cosine", {Metric.COSINE_MEAN: 0.95}),
    ],
)
def test_named_drop_takes_the_place_of_the_default_gate_and_holds_at_its_limit(
    metric: str, metrics: dict[Metric, float]
) -> None:
    at_limit = _judge(metrics, metric=metric, budget=Budget(accuracy_drop=0.05))
    below_limit = _judge(metrics, metric=metric, budget=Budget(accuracy_drop=0.0499))
    assert _verdicts(at_limit) == {"accuracy": Verdict.PASS}
    assert _verdicts(below_limit) == {"accuracy": Verdict.FAIL}
    assert below_limit["accuracy"].exit_code is ExitCode.ACCURACY


def test_drop_of_zero_is_a_limit() -> None:
    budget = Budget(accuracy_drop=0.0)
    assert _judge({}, budget=budget)["accuracy"].verdict is Verdict.PASS
    assert _judge({Metric.TOP1: 0.7995}, budget=budget)["accuracy"].verdict is Verdict.FAIL


def test_accuracy_that_is_off_is_not_judged() -> None:
    assert _judge({Metric.TOP1: 0.0}, budget=Budget(is_accuracy_judged=False)) == {}


def test_failed_drop_says_loss_limit_samples_and_place() -> None:
    detail = _judge({Metric.TOP1: 0.7})["accuracy"].detail
    assert detail == "top1 lost 10.00 pt, limit 1.00 pt (2000 samples, host)"


def test_stand_in_is_named_where_it_is_judged_by() -> None:
    manifest = _manifest(replace(_evidence(PERFECT), stand_in=True))
    assert "host, stand-in" in judge_artifact(manifest, Budget(), metric="top1")[0].detail


def test_accuracy_is_judged_by_the_device_before_the_host() -> None:
    device = _evidence(PERFECT | {Metric.TOP1: 0.5}, place=Place.DEVICE)
    judgement, *_ = judge_artifact(_manifest(device, _evidence(PERFECT)), Budget(), metric="top1")
    assert judgement.verdict is Verdict.FAIL
    assert "device" in judgement.detail


def test_smoke_test_on_a_device_does_not_hide_the_accuracy_of_the_host() -> None:
    smoke = _evidence({Metric.COSINE_MEAN: 1.0}, place=Place.DEVICE)
    judgements = judge_artifact(_manifest(_evidence(PERFECT), smoke), Budget(), metric="top1")
    assert [judgement.verdict for judgement in judgements] == [Verdict.PASS, Verdict.PASS]


@pytest.mark.parametrize("drop", [None, 0.05])
@pytest.mark.parametrize("metric", ["top1", "agreement", "cosine"])
@pytest.mark.parametrize("evidence", [(), (_evidence({}),), (_evidence({Metric.SQNR_DB: 9.0}),)])
def test_accuracy_without_its_metric_is_unmeasured(
    drop: float | None, metric: str, evidence: tuple[Evidence, ...]
) -> None:
    budget = Budget(accuracy_drop=drop)
    (judgement,) = judge_artifact(_manifest(*evidence), budget, metric=metric)
    assert judgement.verdict is Verdict.UNMEASURED
    assert judgement.exit_code is ExitCode.OK


def _evidence_in(runtime: str, **changes: object) -> Evidence:
    where = {"runtime": runtime, "version": "2.0"}
    return replace(_evidence(PERFECT), where=where, **changes)  # type: ignore[arg-type]


def _needs(*runtimes: str) -> Requirements:
    return Requirements(any_of=tuple(RuntimeNeed(runtime=name, min="1") for name in runtimes))


def test_a_file_that_is_right_in_one_runtime_and_wrong_in_another_fails() -> None:
    wrong = _evidence_in("tflite-runtime", metrics=PERFECT | {Metric.TOP1: 0.1})
    for evidence in ((_evidence_in("ai-edge-litert"), wrong), (wrong, _evidence_in("a"))):
        budget = Budget(accuracy_drop=0.01)
        judgements = judge_artifact(_manifest(*evidence), budget, metric="top1")
        failed = [item for item in judgements if item.verdict is Verdict.FAIL]
        (judgement,) = failed
        assert "tflite-runtime 2.0" in judgement.detail
        assert judgement.exit_code is ExitCode.ACCURACY


def test_a_runtime_that_ran_nothing_is_unmeasured_by_name() -> None:
    manifest = replace(
        _manifest(_evidence_in("ai-edge-litert")), requires=_needs("litert", "tflite_runtime")
    )
    packages = {"litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
    judgements = judge_artifact(manifest, Budget(), metric="top1", packages=packages)
    *passed, judgement = judgements
    assert {item.verdict for item in passed} == {Verdict.PASS}
    assert judgement.verdict is Verdict.UNMEASURED
    assert judgement.detail.startswith("accuracy in tflite_runtime was not measured")
    assert judgement.exit_code is ExitCode.OK


def test_a_stand_in_in_another_runtime_does_not_count_beside_the_own_one() -> None:
    wrong = _evidence_in("other", stand_in=True, metrics=PERFECT | {Metric.TOP1: 0.1})
    judgements = judge_artifact(_manifest(_evidence_in("own"), wrong), Budget(), metric="top1")
    assert {judgement.verdict for judgement in judgements} == {Verdict.PASS}


OFF = Budget(is_accuracy_judged=False)


@pytest.mark.parametrize(
    ("model_bytes", "limit", "verdict"),
    [
        ((400_000,), 400_000, Verdict.PASS),
        ((400_001,), 400_000, Verdict.FAIL),
        ((399_999,), 400_000, Verdict.PASS),
        ((200_000, 200_001), 400_000, Verdict.FAIL),
        ((0,), 0, Verdict.PASS),
        ((1,), 0, Verdict.FAIL),
    ],
)
def test_size_is_the_sum_of_the_model_files_and_may_reach_its_limit(
    model_bytes: tuple[int, ...], limit: int, verdict: Verdict
) -> None:
    manifest = _manifest(model_bytes=model_bytes, golden_bytes=10**9)
    (judgement,) = judge_artifact(manifest, replace(OFF, size_bytes=limit), metric="top1")
    assert (judgement.quantity, judgement.verdict) == ("size", verdict)
    assert judgement.exit_code is (ExitCode.BUDGET if verdict is Verdict.FAIL else ExitCode.OK)


def test_failed_size_says_by_how_much() -> None:
    manifest = _manifest(model_bytes=(412_300,))
    (judgement,) = judge_artifact(manifest, replace(OFF, size_bytes=400_000), metric="top1")
    assert judgement.detail == "size 412.3 kB is 12.3 kB over the limit of 400.0 kB"


BOARD = replace(OFF, latency_p95_ms=6.0, memory_bytes=64_000_000)


def test_unmeasured_limits_are_told_and_do_no_harm() -> None:
    judgements = judge_artifact(_manifest(), BOARD, metric="top1")
    assert [judgement.quantity for judgement in judgements] == ["latency_p95", "memory"]
    assert worst_verdict(judgements) is Verdict.UNMEASURED
    assert worst_exit_code(judgement.exit_code for judgement in judgements) is ExitCode.OK
    assert "6 ms" in judgements[0].detail
    assert "64.0 MB" in judgements[1].detail


@pytest.mark.parametrize("place", Place)
def test_unmeasured_limits_are_missing_where_the_budget_names_their_evidence(place: Place) -> None:
    budget = replace(BOARD, evidence=place)
    judgements = judge_artifact(_manifest(), budget, metric="top1")
    assert {judgement.verdict for judgement in judgements} == {Verdict.UNMEASURED}
    assert {judgement.exit_code for judgement in judgements} == {ExitCode.MISSING}
    assert int(ExitCode.MISSING) == 8
    assert all(f"evidence = '{place}'" in judgement.detail for judgement in judgements)


def test_named_evidence_without_a_limit_asks_for_nothing() -> None:
    assert judge_artifact(_manifest(), replace(OFF, evidence=Place.DEVICE), metric="top1") == []


def test_companion_is_judged_on_accuracy_alone() -> None:
    budget = replace(BOARD, is_accuracy_judged=True, size_bytes=1, evidence=Place.DEVICE)
    manifest = _manifest(_evidence(PERFECT | {Metric.AGREEMENT: 0.5}))
    judgements = judge_artifact(manifest, budget, metric="agreement", is_companion=True)
    assert [judgement.quantity for judgement in judgements] == ["agreement"]
    assert judgements[0].verdict is Verdict.FAIL


@given(st.lists(st.sampled_from(ExitCode)))
@settings(deadline=None)
def test_lowest_failing_exit_code_wins(codes: list[ExitCode]) -> None:
    failing = [int(code) for code in codes if code != 0]
    assert int(worst_exit_code(codes)) == (min(failing) if failing else 0)


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ([], Verdict.PASS),
        ([Verdict.PASS], Verdict.PASS),
        ([Verdict.PASS, Verdict.UNMEASURED], Verdict.UNMEASURED),
        ([Verdict.UNMEASURED, Verdict.FAIL, Verdict.PASS], Verdict.FAIL),
    ],
)
def test_worst_verdict(verdicts: list[Verdict], worst: Verdict) -> None:
    judgements = [Judgement(quantity="q", verdict=verdict, detail="") for verdict in verdicts]
    assert worst_verdict(judgements) is worst


def test_judgement_in_json_is_plain() -> None:
    judgement = Judgement(
        quantity="size", verdict=Verdict.FAIL, detail="much", exit_code=ExitCode.BUDGET
    )
    assert judgement.to_json() == {
        "quantity": "size",
        "verdict": "fail",
        "detail": "much",
        "exit_code": 5,
    }


@pytest.mark.parametrize(("limit", "code"), [(0.10, ExitCode.OK), (0.01, ExitCode.ACCURACY)])
def test_the_worst_class_is_held_against_its_own_limit(limit: float, code: ExitCode) -> None:
    share = ClassShare(name="cat", samples=50, top1=0.80, reference_top1=0.86)
    evidence = replace(_evidence(PERFECT), worst_class=share)
    judgements = judge_artifact(_manifest(evidence), Budget(class_drop=limit), metric=Metric.TOP1)
    (own,) = [item for item in judgements if item.quantity == "class_drop"]
    assert own.exit_code is code
    assert "cat" in own.detail


def _board(
    place: Place = Place.DEVICE, *, runtime: str = "ai-edge-litert", **changes: object
) -> Evidence:
    where = {"runtime": runtime, "version": "2.0", "device": "kitchen"}
    bare = replace(_evidence({}, place=place), where=where)
    return replace(bare, **changes)  # type: ignore[arg-type]


def _latency(p95_ms: float, **changes: object) -> Latency:
    latency = Latency(
        p50_ms=p95_ms / 2,
        p90_ms=p95_ms,
        p95_ms=p95_ms,
        p99_ms=p95_ms * 2,
        p95_ci95_ms=None,
        cold_ms=1.0,
        load_ms=1.0,
        sustained_p95_ms=None,
        queries=1024,
        duration_s=60.0,
        warm_up_queries=10,
        threads=1,
        governor=("performance",),
        frequency_khz=None,
        temperature_c=None,
        is_valid=True,
        reasons=(),
    )
    return replace(latency, **changes)  # type: ignore[arg-type]


def _only(quantity: str, *evidence: Evidence, budget: Budget = BOARD) -> list[Judgement]:
    judgements = judge_artifact(_manifest(*evidence), budget, metric="top1")
    return [judgement for judgement in judgements if judgement.quantity == quantity]


@pytest.mark.parametrize(("p95_ms", "verdict"), [(6.0, Verdict.PASS), (6.01, Verdict.FAIL)])
def test_latency_of_a_device_is_held_against_its_limit(p95_ms: float, verdict: Verdict) -> None:
    (judgement,) = _only("latency_p95", _board(latency=_latency(p95_ms)))
    assert judgement.verdict is verdict
    assert "kitchen" in judgement.detail
    assert judgement.exit_code is (ExitCode.BUDGET if verdict is Verdict.FAIL else ExitCode.OK)


@pytest.mark.parametrize("place", [Place.HOST, Place.EMULATED])
def test_latency_from_elsewhere_is_none_of_the_device(place: Place) -> None:
    (judgement,) = _only("latency_p95", _board(place, latency=_latency(1.0)))
    assert judgement.verdict is Verdict.UNMEASURED


def test_latency_that_is_not_valid_is_unmeasured_with_the_reason() -> None:
    latency = _latency(1.0, is_valid=False, reasons=("throttled: at 61 s",))
    (judgement,) = _only("latency_p95", _board(latency=latency))
    assert judgement.verdict is Verdict.UNMEASURED
    assert "throttled: at 61 s" in judgement.detail


def test_the_last_latency_of_each_runtime_counts() -> None:
    slow, fast = _board(latency=_latency(9.0)), _board(latency=_latency(1.0))
    other = _board(runtime="tflite-runtime", latency=_latency(2.0))
    verdicts = [item.verdict for item in _only("latency_p95", slow, fast, other)]
    assert verdicts == [Verdict.PASS, Verdict.PASS]


@pytest.mark.parametrize("serving", [0, 1])
def test_of_the_engines_of_one_board_the_one_that_serves_is_judged(serving: int) -> None:
    engines = [_board(latency=_latency(1.0 + index)) for index in range(2)]
    engines[1 - serving] = engines[1 - serving].set_aside()
    (judgement,) = _only("latency_p95", *engines)
    assert judgement.detail.startswith(f"latency_p95 {1 + serving} ms")
    kept = [Evidence.from_json(item.to_json()) for item in engines]
    assert [item.serves for item in kept] == [serving == 0, serving == 1]
    (judgement,) = _only("latency_p95", engines[1 - serving])
    assert judgement.verdict is Verdict.UNMEASURED


def test_an_engine_that_was_set_aside_does_not_fail_the_one_that_serves() -> None:
    failure = Failure(outcome="mismatch", detail="the int8 engine differs")
    wrong = _board(failure=failure)
    right = _board(latency=_latency(1.0))
    assert _only("device", right, wrong.set_aside()) == []
    (judgement,) = _only("device", right, wrong)
    assert judgement.exit_code is ExitCode.DEVICE_MISMATCH


def test_accuracy_in_an_engine_is_asked_of_the_board() -> None:
    bare = _evidence_in("onnxruntime", stand_in=True)
    kit = replace(_manifest(bare), format=Format.TENSORRT, requires=_needs("tensorrt"))
    told = replace(kit, evidence=(bare, _board(runtime="tensorrt")))
    for manifest, remedy in (
        (kit, "`edgeship evidence import`"),
        (told, "`edgeship test --device"),
    ):
        *_, judgement = judge_artifact(manifest, Budget(), metric="top1")
        assert judgement.verdict is Verdict.UNMEASURED
        assert remedy in judgement.detail
        assert "on this host" not in judgement.detail


@pytest.mark.parametrize(
    ("peak", "verdict"), [(70_000_000, Verdict.PASS), (74_000_001, Verdict.FAIL)]
)
def test_memory_is_the_peak_less_the_imported_runtime(peak: int, verdict: Verdict) -> None:
    memory = MemoryUse(peak_bytes=peak, imported_bytes=10_000_000)
    (judgement,) = _only("memory", _board(Place.EMULATED, memory=memory))
    assert judgement.verdict is verdict
    assert "emulated" in judgement.detail


def test_memory_of_a_device_goes_before_that_of_an_emulated_board() -> None:
    much, little = (
        MemoryUse(peak_bytes=10**9, imported_bytes=0),
        MemoryUse(peak_bytes=1, imported_bytes=0),
    )
    device, emulated = _board(memory=much), _board(Place.EMULATED, memory=little)
    (judgement,) = _only("memory", device, emulated)
    assert judgement.verdict is Verdict.FAIL


def test_memory_of_another_place_than_the_budget_names_does_not_count() -> None:
    memory = MemoryUse(peak_bytes=1, imported_bytes=0)
    budget = replace(BOARD, evidence=Place.DEVICE)
    (judgement,) = _only("memory", _board(Place.EMULATED, memory=memory), budget=budget)
    assert judgement.exit_code is ExitCode.MISSING


def test_what_failed_on_a_board_fails_the_artifact() -> None:
    failure = Failure(outcome="illegal-instruction", detail="it used an instruction")
    (judgement,) = _only("device", _board(failure=failure), budget=Budget())
    assert judgement.verdict is Verdict.FAIL
    assert judgement.exit_code is ExitCode.DEVICE_MISMATCH
    assert judgement.detail == "it used an instruction (device, ai-edge-litert 2.0, kitchen)"


def _sample(top1: float, samples: int) -> Evidence:
    return _board(metrics=PERFECT | {Metric.TOP1: top1}, samples=samples)


def test_a_few_samples_on_a_board_do_not_fail_by_chance() -> None:
    """Two points of 50 samples are one image."""
    host = _evidence_in("ai-edge-litert")
    judgements = judge_artifact(_manifest(host, _sample(0.78, 50)), Budget(), metric="top1")
    assert {judgement.verdict for judgement in judgements} == {Verdict.PASS}


def test_a_few_samples_on_a_board_fail_where_chance_explains_nothing() -> None:
    host = _evidence_in("ai-edge-litert")
    judgements = judge_artifact(_manifest(host, _sample(0.3, 50)), Budget(), metric="top1")
    (judgement,) = [item for item in judgements if item.verdict is Verdict.FAIL]
    assert judgement.exit_code is ExitCode.ACCURACY
    assert "50 samples, device" in judgement.detail
