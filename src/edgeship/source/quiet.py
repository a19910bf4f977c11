"""Keeps torch's chatter off the user's screen: what is wrong, our errors say."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet_torch(level: int = logging.ERROR) -> Iterator[None]:
    """Hide warnings, printed programs and log lines below `level` while the block runs."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(level)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
