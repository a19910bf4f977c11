"""Standing: boards that stay on between commands, one of each name, and how they are found again.

A board's folder holds its state file, serial log and known_hosts. The state names QEMU by number
and start, so that after a restart of this machine no other process is taken for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edgeship.device_tests.lab.address import BOARD_USER, Address
from edgeship.device_tests.lab.board import LabBoard
from edgeship.device_tests.lab.boot import address_of, serial_file, start_board
from edgeship.device_tests.lab.image import LabImage, lab_folder, read_image
from edgeship.device_tests.lab.process import ProcessIdentity, is_alive, kill_process
from edgeship.device_tests.lab.qemu import StandingQemu, find_standing
from edgeship.device_tests.lab.serial_log import read_serial_log
from edgeship.errors import Problem, RequirementMissing
from edgeship.exchange import project_lock, write_file

_STATE: Final = "board.json"
_END_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class StandingBoard:
    """A board that is on, whoever turned it on.

    Attributes:
        board: What is emulated.
        image: What it runs.
        folder: Its files.
        port: See `Address`.
        process: Its QEMU.
        is_counting: See `Machine`.
    """

    board: LabBoard
    image: LabImage
    folder: Path
    port: int
    process: ProcessIdentity
    is_counting: bool

    def address(self, user: str = BOARD_USER) -> Address:
        """How to log in."""
        return address_of(self.folder, image=self.image, port=self.port, user=user)

    def serial(self) -> str:
        """What the board's console has shown until now."""
        return read_serial_log(serial_file(self.folder))


def standing_board(name: str) -> StandingBoard | None:
    """The board of that name that is on; None where none is, or its QEMU has ended."""
    folder = _folder(name)
    try:
        state = json.loads((folder / _STATE).read_bytes())
    except (OSError, ValueError):
        return None
    process = ProcessIdentity(**state["process"])
    image = read_image(Path(state["image"]))
    if image is None or not is_alive(process):
        return None
    return StandingBoard(
        board=LabBoard(**state["board"]),
        image=image,
        folder=folder,
        port=state["port"],
        process=process,
        is_counting=state["is_counting"],
    )


def turn_on(
    board: LabBoard,
    image: LabImage,
    *,
    counting: bool = False,
    on_wait: Callable[[str], None],
) -> StandingBoard:
    """Turn a board on that stays on; the one that is on already, where it is as asked for.

    Args:
        board: What to emulate.
        image: What it runs.
        counting: See `Machine.is_counting`.
        on_wait: Told the process that is turning the same board on or off, if one is.

    Raises:
        RequirementMissing: It does not come up, or is on otherwise than asked for.
    """
    with _lock(board.name, on_wait):
        if (standing := standing_board(board.name)) is not None:
            _require_like(standing, image=image, counting=counting)
            return standing
        folder = _folder(board.name)
        _clear(folder)
        folder.mkdir(parents=True)
        running = start_board(board, image, folder=folder, counting=counting, start=StandingQemu)
        assert isinstance(running.power, StandingQemu)  # as was asked for
        assert running.power.identity is not None  # it answered over SSH
        state = {
            "board": asdict(board),
            "image": str(image.folder),
            "port": running.port,
            "process": asdict(running.power.identity),
            "is_counting": counting,
        }
        write_file(folder / _STATE, json.dumps(state, indent=1).encode())
    standing = standing_board(board.name)
    if standing is None:
        problem = Problem(
            where=f"lab {board.name}",
            what="the board ended as soon as it was up",
            remedy="turn it on again",
        )
        raise RequirementMissing(problem)
    return standing


def turn_off(name: str, *, on_wait: Callable[[str], None]) -> StandingBoard | None:
    """Turn a board off, without shutting it down: its disk is forgotten anyway.

    Returns:
        What was on; None where nothing was.
    """
    with _lock(name, on_wait):
        standing = standing_board(name)
        if standing is not None and not kill_process(standing.process, deadline_s=_END_S):
            problem = Problem(
                where=f"lab {name}",
                what=f"QEMU, process {standing.process.pid}, does not end",
                remedy="see what holds it (`ps`), and end it by hand",
            )
            raise RequirementMissing(problem)
        _clear(_folder(name))
    return standing


def _clear(folder: Path) -> None:
    """Forget a board, with a QEMU whose starter was killed before it wrote the state."""
    if (process := find_standing(folder)) is not None:
        kill_process(process, deadline_s=_END_S)
    shutil.rmtree(folder, ignore_errors=True)


def _require_like(standing: StandingBoard, *, image: LabImage, counting: bool) -> None:
    """A board that is on with another image or in another mode is no answer to the question."""
    if (standing.image.key, standing.is_counting) == (image.key, counting):
        return
    name = standing.board.name
    problem = Problem(
        where=f"lab {name}",
        what="the board is on already, with another image or in another mode",
        expected=_mode(image, counting),
        found=_mode(standing.image, standing.is_counting),
        remedy=f"`edgeship lab down {name}` first",
    )
    raise RequirementMissing(problem)


def _mode(image: LabImage, counting: bool) -> str:
    return f"image {image.key}{', counting' if counting else ''}"


def _lock(name: str, on_wait: Callable[[str], None]) -> AbstractContextManager[None]:
    return project_lock(_folder(name).with_suffix(".lock"), on_wait=on_wait)


def _folder(name: str) -> Path:
    return lab_folder() / "boards" / name
