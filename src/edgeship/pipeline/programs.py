"""Programs: what travels with an artifact that a board has to finish."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeship.device_tests.board_archive import ARCHIVE_NAME, archive_bytes
from edgeship.pipeline.cache import StageKey, stage_key
from edgeship.vocabulary import Format


def board_programs(format_: Format) -> dict[str, bytes]:
    """Contents by name; none for files that a runtime of the board takes as they are."""
    if format_ is not Format.TENSORRT:
        return {}
    from edgeship.exporters.tensorrt.kit.archive import PROGRAM_NAME, program_bytes

    return {PROGRAM_NAME: program_bytes(), ARCHIVE_NAME: archive_bytes()}


def programs_key(programs: dict[str, bytes]) -> StageKey:
    """Key of the stage that writes them."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in programs.items()}
    return stage_key("programs", digests=digests)


def write_programs(programs: dict[str, bytes], directory: Path) -> None:
    """Write them, to be run."""
    for name, content in programs.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o755)
