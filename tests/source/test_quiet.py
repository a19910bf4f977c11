import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress

import pytest

from edgeship.source.quiet import quiet_logs, quiet_torch


@pytest.fixture(params=["torch", "torchao"])
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """A logger of the vendor's with a level of its own."""
    found = logging.getLogger(request.param)
    before = found.level
    found.setLevel(logging.INFO)
    yield found
    found.setLevel(before)


@pytest.mark.parametrize("quiet", [quiet_torch, quiet_logs])
def test_log_lines_below_the_level_are_hidden_and_the_level_comes_back(
    quiet: Callable[[int], AbstractContextManager[None]], logger: logging.Logger
) -> None:
    inner = logger.getChild("some.module")
    with quiet(logging.ERROR):
        assert not inner.isEnabledFor(logging.WARNING)
        assert inner.isEnabledFor(logging.ERROR)
    assert logger.level == logging.INFO
    with suppress(ZeroDivisionError), quiet(logging.CRITICAL):
        assert not inner.isEnabledFor(logging.ERROR)
        raise ZeroDivisionError
    assert logger.level == logging.INFO


@pytest.mark.parametrize("quiet", [quiet_torch, quiet_logs])
def test_warnings_are_hidden_and_their_filters_come_back(
    quiet: Callable[[], AbstractContextManager[None]],
) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = warnings.filters[:]
        with quiet():
            warnings.warn("hidden", stacklevel=1)
            warnings.filterwarnings("error", message="of a library that was imported")
        assert warnings.filters == before
        warnings.warn("shown", stacklevel=1)
    assert [str(item.message) for item in seen] == ["shown"]


def test_what_is_printed_is_hidden_too_unless_only_logs_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = sys.stderr
    with quiet_torch():
        print("a program", file=sys.stderr)
    with quiet_logs():
        assert sys.stderr is stream
        print("kept", file=sys.stderr)
    assert sys.stderr is stream
    assert capsys.readouterr().err == "kept\n"
