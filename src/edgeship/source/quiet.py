"""Keeps torch's chatter off the user's screen: what is wrong, our errors say."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Final

_LOGGERS: Final = ("torch", "torchao")
"""torchao, where it is installed, comes with transformers' models and says what it cannot load."""


@contextmanager
def quiet_torch(level: int = logging.ERROR) -> Iterator[None]:
    """Hide warnings, printed programs and log lines below `level` while the block runs."""
    with quiet_logs(level), redirect_stderr(io.StringIO()):
        yield


@contextmanager
def quiet_logs(level: int = logging.ERROR) -> Iterator[None]:
    """Hide warnings and log lines below `level`, but leave sys.stderr as it is.

    For blocks that import: a library keeps the stderr that it finds then for good.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, kept in zip(loggers, before, strict=True):
            logger.setLevel(kept)
