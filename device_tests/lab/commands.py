"""Commands: what `edgeship lab build | up | down | list | run` do; their results are printable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.device_tests.devices import lab_device
from edgeship.device_tests.lab.address import BOARD_USER
from edgeship.device_tests.lab.board import LabBoard, lab_board, lab_boards, require_board
from edgeship.device_tests.lab.image import LabImage, build_image, find_image, open_image
from edgeship.device_tests.lab.recipe import lab_recipe
from edgeship.device_tests.lab.standing import StandingBoard, standing_board, turn_off, turn_on
from edgeship.device_tests.transports.protocol import Ended
from edgeship.errors import Problem, RequirementMissing
from edgeship.story import Silence, Story

_CONNECT_S: Final = 60.0
"""Emulated boards take 1 s for a login, many times that on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """What `lab build` gives; `is_new` where it was not there before."""

    image: LabImage
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class ListedBoard:
    """A row of `lab list`; `standing` where the board is on."""

    board: LabBoard
    standing: StandingBoard | None


def build(*, extras: Mapping[str, Path] | None = None, story: Story | None = None) -> BuiltImage:
    """Build the image, unless it is there; `extras` as in `lab_recipe`.

    Raises:
        RequirementMissing: A tool, a package or room is absent.
    """
    recipe = lab_recipe(extras)
    is_new = find_image(recipe) is None
    return BuiltImage(image=build_image(recipe, story), is_new=is_new)


def up(
    name: str,
    *,
    counting: bool = False,
    extras: Mapping[str, Path] | None = None,
    story: Story | None = None,
) -> StandingBoard:
    """Turn a board on, which stays on until `down`.

    Raises:
        UnknownName: No such board.
        RequirementMissing: The image is not built, or the board does not come up.
    """
    story = story or Silence()
    require_board(name)
    standing = standing_board(name)
    board = lab_board(name) if standing is None else standing.board
    image = open_image(lab_recipe(extras))
    if board.is_reduced:
        story.say(
            f"{name} has {board.memory_bytes >> 20} MiB here instead of "
            f"{board.row_memory_bytes >> 20}: that much this machine can spare"
        )
    with story.stage("lab", f"{name}: {board.cpu}, {board.memory_bytes >> 20} MiB"):
        return turn_on(board, image, counting=counting, on_wait=_waiting(name, story))


def down(names: Sequence[str] = (), *, story: Story | None = None) -> tuple[StandingBoard, ...]:
    """Turn boards off, all of them where none is named; returns those that were on.

    Raises:
        UnknownName: No such board.
    """
    story = story or Silence()
    chosen = names or lab_boards()
    for name in names:
        require_board(name)
    off = (turn_off(name, on_wait=_waiting(name, story)) for name in chosen)
    return tuple(board for board in off if board is not None)


def listing() -> tuple[ListedBoard, ...]:
    """All boards that can be emulated, and which are on."""
    found = []
    for name in lab_boards():
        standing = standing_board(name)
        board = lab_board(name) if standing is None else standing.board
        found.append(ListedBoard(board=board, standing=standing))
    return tuple(found)


def run(
    name: str,
    command: Sequence[str],
    *,
    deadline_s: float,
    user: str = BOARD_USER,
    on_line: Callable[[str], None] | None = None,
) -> Ended:
    """Run a program on a board that is on; see `Connection.run`.

    Raises:
        UnknownName: No such board.
        RequirementMissing: The board is off, or the connection failed.
    """
    require_board(name)
    standing = standing_board(name)
    if standing is None:
        problem = Problem(
            where=f"lab {name}",
            what="the board is off",
            remedy=f"`edgeship lab up {name}` first",
        )
        raise RequirementMissing(problem)
    transport = lab_device(name, standing.address(user), target=name).transport()
    with transport.connect(deadline_s=_CONNECT_S) as connection:
        return connection.run(command, deadline_s=deadline_s, on_line=on_line)


def _waiting(name: str, story: Story) -> Callable[[str], None]:
    return lambda pid: story.say(f"waiting for process {pid}, which turns {name} on or off")
