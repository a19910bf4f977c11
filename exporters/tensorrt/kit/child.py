"""Child: what runs in a process of its own, since TensorRT may take the process with it."""

import importlib
import json
import sys
from typing import Dict, List, Optional

from edgeship.exporters.tensorrt.kit.api_build import build_engine
from edgeship.exporters.tensorrt.kit.gpu import compute_capability
from edgeship.exporters.tensorrt.kit.stopped import EXIT_STATUSES, Stopped, first_line
from edgeship.exporters.tensorrt.kit.toolchain import ANSWER

OPTION = "--child"
STOPPED = "edgeship-stopped: "
"""Begins the line in which a build says its own outcome."""


def run_child(arguments: List[str]) -> int:
    """`ask ROOT`, or `build REQUEST`: a file of JSON with the arguments of `build_engine`."""
    if arguments[0] == "ask":
        sys.stdout.write(ANSWER + json.dumps(_answer(arguments[1])) + "\n")
        return 0
    with open(arguments[1], encoding="utf-8") as file:
        request = json.load(file)
    try:
        build_engine(importlib.import_module("tensorrt"), **request)
    except Stopped as error:
        stopped = {"outcome": error.outcome, "message": error.message}
        sys.stdout.write(STOPPED + json.dumps(stopped) + "\n")
        return EXIT_STATUSES[error.outcome]
    return 0


def stopped_of(lines: List[str]) -> Optional[Stopped]:
    """What a build said of itself, from its lines."""
    for line in reversed(lines):
        if line.startswith(STOPPED):
            said = json.loads(line[len(STOPPED) :])
            return Stopped(said["outcome"], said["message"])
    return None


def _answer(root: str) -> Dict[str, Optional[str]]:
    """Version of TensorRT's Python package, why there is none, its file if pure, and the GPU."""
    version, problem, pure = None, None, None
    try:
        package = importlib.import_module("tensorrt")
        version = str(package.__version__)
        pure = None if _is_compiled() else str(getattr(package, "__file__", None))
    except ImportError as error:
        problem = first_line(str(error))
    except Exception as error:  # loaders of compiled packages raise anything
        problem = first_line(f"{type(error).__name__}: {error}")
    sm = compute_capability(root)
    return {"tensorrt": version, "problem": problem, "sm": sm, "pure": pure}


def _is_compiled() -> bool:
    """Whether a module of TensorRT's that was imported is a shared library.

    In wheels it is one of `tensorrt_bindings`, in NVIDIA's Debian packages of `tensorrt`.
    """
    modules = [module for name, module in sys.modules.items() if name.startswith("tensorrt")]
    return any(str(getattr(module, "__file__", "")).endswith(".so") for module in modules)
