"""Pooling: how an embedding is made of the tokens', from the files of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, ExportFailed, Problem
from edgeship.exporters.gguf.architectures.refusals import WAY_ROUND
from edgeship.source.hf_config import CONFIG, read_json_object

MEAN: Final = 1
CLS: Final = 2
LAST: Final = 3
"""`llama_pooling_type` of llama.h."""
_FLAGS: Final[Mapping[str, int]] = {
    "pooling_mode_mean_tokens": MEAN,
    "pooling_mode_cls_token": CLS,
    "pooling_mode_lasttoken": LAST,
}
_MODES: Final[Mapping[str, int]] = {"mean": MEAN, "cls": CLS, "lasttoken": LAST}
_MODULES: Final = "modules.json"


def read_pooling(directory: Path) -> int | None:
    """The pooling type, or None where `modules.json` names none.

    Source: conversion/base.py of llama.cpp, `_try_set_pooling_type`, for the order of preference.

    Raises:
        ConfigurationError: One of the files cannot be read.
        ExportFailed: A way of pooling that llama.cpp has not.
    """
    module = _pooling_module(directory / _MODULES)
    if module is None:
        return None
    file = directory / module / CONFIG
    settings = read_json_object(file)
    for flag, number in _FLAGS.items():
        if settings.get(flag):
            return number
    mode = settings.get("pooling_mode")
    if isinstance(mode, str) and mode in _MODES:
        return _MODES[mode]
    named = [key for key, value in settings.items() if value is True]
    raise ExportFailed(
        Problem(
            where=str(file),
            what="llama.cpp has no such pooling",
            expected=", ".join(_MODES),
            found=str(mode or ", ".join(named) or "none"),
            remedy=WAY_ROUND,
        )
    )


def _pooling_module(file: Path) -> str | None:
    """The folder of the module that pools."""
    if not file.is_file():
        return None
    found = "another structure"
    try:
        modules = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        modules, found = None, str(error)
    if isinstance(modules, list) and all(isinstance(module, dict) for module in modules):
        folders = [
            module.get("path")
            for module in modules
            if str(module.get("type", "")).endswith("Pooling")
        ]
        folder = folders[0] if folders else None
        if folder is None:
            return None
        if isinstance(folder, str) and folder.isprintable() and Path(folder).name == folder:
            return folder
        found = f"a path {folder!r}"
    problem = Problem(
        where=str(file),
        what="the file cannot be read",
        expected="a list of modules, each with its type and its folder beside the file",
        found=found,
        remedy="fetch or save the model again",
    )
    raise ConfigurationError(problem)
