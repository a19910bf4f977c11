import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgeship.errors import ExportFailed
from edgeship.evaluate.golden_tokens import TokenCase, log_probabilities, write_token_pack

VOCABULARY = 300
GENERATOR = np.random.default_rng(0)


def token_case(name: str, *, noise: float, same: int = 32) -> TokenCase:
    logits = GENERATOR.standard_normal(VOCABULARY).astype(np.float32) * 4
    reference = tuple(range(32))
    return TokenCase(
        name=name,
        prompt=(1, 2, 3),
        artifact=reference[:same] + tuple(299 for _ in range(32 - same)),
        reference=reference,
        artifact_logits=logits + GENERATOR.standard_normal(VOCABULARY).astype(np.float32) * noise,
        reference_logits=logits,
    )


def torch_divergence(expected: np.ndarray, given: np.ndarray) -> float:
    """KL(expected || given) of log-probabilities."""
    one, other = (torch.tensor(item, dtype=torch.float64) for item in (expected, given))
    return float(functional.kl_div(other, one, reduction="sum", log_target=True))


def written(directory: Path, cases: list[TokenCase]) -> list[dict[str, Any]]:
    names = write_token_pack(directory, cases)
    assert sorted(names) == sorted(
        f"golden/{path.name}" for path in (directory / "golden").iterdir()
    )
    pack = json.loads((directory / "golden/golden.json").read_bytes())
    assert set(pack) == {"schema", "cases"}
    entries: list[dict[str, Any]] = pack["cases"]
    return entries


def tensor(directory: Path, entry: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    raw = (directory / "golden" / entry["file"]).read_bytes()
    return np.frombuffer(raw, dtype).reshape(entry["shape"])


def expected_of(entry: dict[str, Any], name: str, of: str) -> dict[str, Any]:
    (one,) = [item for item in entry["expect"] if (item["name"], item["of"]) == (name, of)]
    assert isinstance(one, dict)
    return one


def test_log_probabilities_are_those_of_torch() -> None:
    logits = GENERATOR.standard_normal(VOCABULARY).astype(np.float32) * 30
    ours = log_probabilities(logits)
    theirs = functional.log_softmax(torch.tensor(logits, dtype=torch.float64), dim=0).numpy()
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs.astype(np.float32))


def test_log_probabilities_of_large_logits_are_finite() -> None:
    ours = log_probabilities(np.array([1e38, -1e38, 0.0], np.float32))
    assert np.isfinite(ours).all()
    assert ours[0] == 0


def test_each_case_has_tokens_and_log_probabilities_of_both(tmp_path: Path) -> None:
    cases = [token_case("a", noise=0.1), token_case("b", noise=0.1, same=16)]
    entries = written(tmp_path, cases)
    for case, entry in zip(cases, entries, strict=True):
        assert len(entry["expect"]) == 4
        for of, logits, tokens in (
            ("artifact-on-host", case.artifact_logits, case.artifact),
            ("float-model", case.reference_logits, case.reference),
        ):
            likely = expected_of(entry, "logprobs", of)
            assert (likely["dtype"], likely["shape"]) == ("float32", [1, VOCABULARY])
            assert likely["compare"]["kind"] == "kld"
            values = tensor(tmp_path, likely)
            assert np.exp(values.astype(np.float64)).sum() == pytest.approx(1, abs=1e-6)
            np.testing.assert_array_equal(values[0], log_probabilities(logits))
            given = expected_of(entry, "tokens", of)
            assert given["compare"]["kind"] == "tokens"
            assert tuple(tensor(tmp_path, given)[0].tolist()) == tokens


def test_the_artifact_itself_passes_and_a_board_as_far_again(tmp_path: Path) -> None:
    cases = [token_case("a", noise=0.05), token_case("b", noise=0.3)]
    entries = written(tmp_path, cases)
    apart = []
    for case, entry in zip(cases, entries, strict=True):
        own = tensor(tmp_path, expected_of(entry, "logprobs", "artifact-on-host"))
        model = tensor(tmp_path, expected_of(entry, "logprobs", "float-model"))
        apart.append(torch_divergence(model, own))
        assert case.divergence == pytest.approx(apart[-1], rel=1e-3)
    limits = {
        of: expected_of(entries[0], "logprobs", of)["compare"]["limit"]
        for of in ("artifact-on-host", "float-model")
    }
    assert limits["float-model"] > max(apart)
    roots = math.sqrt(max(apart)) + math.sqrt(limits["artifact-on-host"])
    assert limits["float-model"] == pytest.approx(roots**2, rel=1e-3)
    assert (
        limits["float-model"]
        == expected_of(entries[1], "logprobs", "float-model")["compare"]["limit"]
    )


def test_another_prompt_is_beyond_the_limit(tmp_path: Path) -> None:
    one, other = token_case("a", noise=0.05), token_case("b", noise=0.05)
    entries = written(tmp_path, [one, other])
    for of in ("artifact-on-host", "float-model"):
        expected = expected_of(entries[0], "logprobs", of)
        swapped = tensor(tmp_path, expected_of(entries[1], "logprobs", "artifact-on-host"))
        assert torch_divergence(tensor(tmp_path, expected), swapped) > expected["compare"]["limit"]


def test_the_limit_of_tokens_is_what_the_artifact_reached_less_a_half(tmp_path: Path) -> None:
    entries = written(tmp_path, [token_case("a", noise=0), token_case("b", noise=0, same=16)])
    assert expected_of(entries[0], "tokens", "artifact-on-host")["compare"]["limit"] == 0.5
    limit = expected_of(entries[0], "tokens", "float-model")["compare"]["limit"]
    assert limit == pytest.approx(0.75 - 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["artifact_logits", "reference_logits"])
def test_logits_that_are_no_numbers_are_refused(tmp_path: Path, side: str, value: float) -> None:
    case = token_case("a", noise=0)
    bad = getattr(case, side).copy()
    bad[7] = value
    match = "artifact" if side == "artifact_logits" else "float model"
    with pytest.raises(ExportFailed, match=f"{match}.*1 of 300 values"):
        write_token_pack(tmp_path, [replace(case, **{side: bad})])
    assert not (tmp_path / "golden").exists()


def test_same_cases_same_bytes(tmp_path: Path) -> None:
    case = token_case("a", noise=0.1)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_token_pack(tmp_path / name, [case])
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "golden").iterdir()}
        for name in ("one", "other")
    )
    assert one == other
