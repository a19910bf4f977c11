from __future__ import annotations

import json

from edgeship.device_tests.probe.described import described_from_lines
from edgeship.targets.board_facts import FoundRuntime

PYTHON = {"event": "python", "version": "3.11.2", "numpy": "1.26.4", "machine": "aarch64"}
LITERT = {"event": "runtime", "name": "litert", "version": "2.3.0", "kind": "python"}
LLAMA = {
    "event": "runtime",
    "name": "llama.cpp",
    "version": None,
    "kind": "program",
    "path": "/usr/bin/llama-server",
    "problem": "it ended by SIGILL",
}
END = {"event": "end", "outcome": "ok"}


def lines(*events: object) -> list[str]:
    return [json.dumps(event) for event in events]


def test_events_become_facts() -> None:
    found = described_from_lines(lines({**PYTHON, "glibc": "2.36"}, LITERT, LLAMA, END))
    assert (found.python, found.numpy, found.glibc) == ("3.11.2", "1.26.4", "2.36")
    assert found.runtimes == (
        FoundRuntime(name="litert", version="2.3.0", kind="python"),
        FoundRuntime(
            name="llama.cpp",
            version=None,
            kind="program",
            path="/usr/bin/llama-server",
            problem="it ended by SIGILL",
        ),
    )
    assert found.notes == ()


def test_lines_of_others_are_left_out() -> None:
    noise = [
        "INFO: Created TensorFlow Lite XNNPACK delegate",
        "{",
        "[1]",
        '{"event": 1}',
        "[" * 9999,
    ]
    found = described_from_lines([*noise, *lines(PYTHON, {"event": "later"}), *noise, *lines(END)])
    assert (found.python, found.runtimes, found.notes) == ("3.11.2", (), ())


def test_runtimes_of_a_search_that_ended_early_are_kept_with_a_note() -> None:
    found = described_from_lines(lines(PYTHON, LITERT))
    assert len(found.runtimes) == 1
    assert found.notes == ("the search for runtimes ended early (no last line)",)
    found = described_from_lines(lines(PYTHON, {"event": "end", "outcome": "timeout"}))
    assert found.notes == ("the search for runtimes ended early (timeout)",)


def test_an_event_with_values_of_another_kind_is_not_believed() -> None:
    found = described_from_lines(
        lines({**PYTHON, "numpy": 2}, {**LITERT, "name": None}, {**LITERT, "version": 2.3}, END)
    )
    assert found.numpy is None
    assert [item.version for item in found.runtimes] == [None]


def test_what_keeps_numpy_from_working_is_a_note() -> None:
    problem = "this Python has no numpy"
    found = described_from_lines(lines({**PYTHON, "numpy": None, "problem": problem}, END))
    assert (found.numpy, found.notes) == (None, (problem,))
