"""Probe file: the facts of one board, kept so that it need not be asked again."""

from __future__ import annotations

import json
from pathlib import Path

from edgeship.errors import ConfigurationError, Problem
from edgeship.exchange import write_file
from edgeship.targets.board_facts import BoardFacts

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def write_probe_file(file: Path, facts: BoardFacts) -> None:
    """Write the facts atomically, indented for people; the directory is made if absent."""
    text = json.dumps(facts.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_file(file, text.encode() + b"\n")


def read_probe_file(file: Path) -> BoardFacts:
    """Read what `write_probe_file` wrote.

    Raises:
        ConfigurationError: No such file, or one that is none of ours.
    """
    try:
        value = json.loads(file.read_bytes())
        return BoardFacts.from_json(value)
    except _UNREADABLE as error:
        problem = Problem(
            where=str(file),
            what="this is no probe file that can be read",
            found=f"{type(error).__name__}: {error}",
            remedy="ask the board again: `edgeship doctor --device NAME`",
        )
        raise ConfigurationError(problem) from error
