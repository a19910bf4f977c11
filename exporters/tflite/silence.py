"""Silence: the converter and what it imports, without their log lines on the user's screen."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

from edgeship.source.quiet import quiet_torch

_STDERR: Final = 2
_SETTINGS: Final = {"LITERT_TORCH_SHOW_PROGRESS": "n", "LITERT_TORCH_SILENCE_TORCH_LOGS": "n"}
"""litert_torch._config: no progress lines; leave the levels and handlers of torch's loggers."""
_IMPORT_SETTINGS: Final = {"TF_CPP_MIN_LOG_LEVEL": "2"}
"""Read once when the converter's library is loaded: errors only, no counts of operations."""


def import_litert_torch() -> Any:  # noqa: ANN401 - the vendor has no types
    """The package; when it is loaded, its library writes a line to the process's stderr."""
    with silent_vendors(), _environment(_IMPORT_SETTINGS), _no_stderr():
        import litert_torch

    return litert_torch


@contextmanager
def silent_vendors() -> Iterator[None]:
    """Hide log records, warnings and prints while the block runs; all settings come back."""
    root = logging.getLogger()
    handlers, disabled = root.handlers[:], root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with quiet_torch(), redirect_stdout(io.StringIO()), _environment(_SETTINGS):
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers  # logging.warning() of the vendor adds one


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Throw away what libraries write to the descriptor itself."""
    kept = os.dup(_STDERR)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nothing)
