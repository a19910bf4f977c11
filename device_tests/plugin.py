"""pytest plugin: `pytest --pyargs edgeship.device_tests --device NAME` tests artifacts on a board.

Every pytest that finds edgeship loads it: nothing else of edgeship is imported before a test of
ours asks for a board.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from edgeship.device_tests.open_board import OpenBoard


class BoardUnderTest:
    """The board of a test run, opened when a test first asks for it.

    One that cannot be reached, or breaks, fails the test that met it; those after it are skipped.
    """

    def __init__(self, config: pytest.Config, stack: ExitStack) -> None:
        self._config = config
        self._stack = stack
        self._board: OpenBoard | None = None
        self._broken: str | None = None

    def open(self) -> OpenBoard:
        """The board; skips where none is named or it is broken, fails where it breaks now."""
        if self._config.getoption("--device") is None:
            pytest.skip("no board is named: --device NAME")
        if self._broken is not None:
            pytest.skip(f"the board is broken: {self._broken}")
        if self._board is None:
            from edgeship.errors import EdgeshipError

            try:
                self._board = self._stack.enter_context(_opened(self._config))
            except EdgeshipError as error:
                self.fail(str(error))
        return self._board

    def fail(self, reason: str) -> NoReturn:
        """Fail this test for the board's sake; it is not asked again."""
        self._broken = reason.splitlines()[0]
        pytest.fail(f"the board is broken: {reason}", pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of edgeship's device tests."""
    group = parser.getgroup("edgeship", "tests of artifacts on a board")
    group.addoption(
        "--device", metavar="NAME", help="of devices.toml, or lab:TARGET for an emulated board"
    )
    group.addoption("--devices", type=Path, metavar="FILE", help="where devices are written")
    group.addoption(
        "--artifacts",
        type=Path,
        default=Path("build"),
        metavar="DIR",
        help="a project's build folder, a target's below it, or one artifact (default: build)",
    )


@pytest.fixture(scope="session")
def board_under_test(request: pytest.FixtureRequest) -> Iterator[BoardUnderTest]:
    """The board that `--device` names; nothing is left on it afterwards."""
    with ExitStack() as stack:
        yield BoardUnderTest(request.config, stack)


def _opened(config: pytest.Config) -> AbstractContextManager[OpenBoard]:
    from edgeship.device_tests.session import devices_of, open_named
    from edgeship.story import Silence

    name: str = config.getoption("--device")
    return open_named(devices_of(config.getoption("--devices"), Path.cwd(), name), Silence())
