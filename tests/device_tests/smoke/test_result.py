import pytest

from edgeship.device_tests.smoke.result import Outcome, SmokeRun


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_sentence(outcome: Outcome) -> None:
    found = SmokeRun(
        outcome=outcome,
        message="why",
        diagnosis=None,
        runtime="onnxruntime",
        where={"runtime": "onnxruntime", "version": "1.31.1"},
        cases=(),
        imported_bytes=None,
        peak_bytes=None,
        worker_peak_bytes=200 << 20,
        is_peak_reset=False,
    )
    assert found.sentence.endswith(": why")
    assert "{" not in found.sentence
    assert ("200 MiB" in found.sentence) == (outcome is Outcome.OUT_OF_MEMORY)
    assert found.is_ok == (outcome is Outcome.OK)


def test_the_board_names_every_outcome_that_the_host_knows() -> None:
    from edgeship.device_tests.board.stopped import EXIT_STATUSES

    assert set(EXIT_STATUSES) == set(Outcome)
