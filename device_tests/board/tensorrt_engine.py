"""Engine: one that build_engine.py of a kit built here, found by its record."""

import glob
import hashlib
import json
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.stopped import Stopped

_SCHEMA = 1
_REPORT_NAME = "engine_report.json"
_ID_DIGITS = 16
_BLOCK_BYTES = 1 << 20
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)


class Engine(NamedTuple):
    """What a record says.

    Attributes:
        path: Of the engine's file.
        sha256: That it must have.
        artifact_id: Of the kit that it was built from.
        version: Of TensorRT, at most three numbers.
        trtexec: Program that built it and runs it; None where TensorRT's Python package does.
        sm: Of the GPU.
    """

    path: str
    sha256: str
    artifact_id: str
    version: Tuple[int, ...]
    trtexec: Optional[str]
    sm: str

    def require_of(self, artifact: Artifact) -> None:
        """Raises Stopped, "refused" or "damaged", where it is not the engine of this artifact."""
        if self.artifact_id != artifact.manifest["artifact_id"]:
            message = f"{self.path} was built from another kit: build it again from this one"
            raise Stopped("refused", message)
        digest = hashlib.sha256()
        try:
            with open(self.path, "rb") as file:
                block = file.read(_BLOCK_BYTES)
                while block:
                    digest.update(block)
                    block = file.read(_BLOCK_BYTES)
        except OSError as error:
            message = f"{self.path} cannot be read: {error.strerror}"
            raise Stopped("damaged", message) from error
        if digest.hexdigest() != self.sha256:
            raise Stopped("damaged", f"{self.path} is not the engine that was built")


def read_engine(path: str) -> Engine:
    """Read a record; raises Stopped, "damaged"."""
    record = _json(path)
    try:
        if record["schema"] != _SCHEMA:
            message = "schema {!r}".format(record["schema"])
            raise ValueError(message)
        is_program = record["way"] == "trtexec"
        return Engine(
            path=os.path.join(os.path.dirname(path), os.path.basename(record["file"])),
            sha256=record["sha256"],
            artifact_id=record["artifact_id"],
            version=leading_numbers(record["tensorrt"]),
            trtexec=str(record["trtexec"]) if is_program else None,
            sm=record["sm"],
        )
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def find_record(artifact: Artifact) -> str:
    """Record of the engine that build_engine.py recommended here for an artifact.

    Raises:
        Stopped: "no-runtime": none was built.
    """
    identity = artifact.manifest["artifact_id"][:_ID_DIGITS]
    pattern = os.path.join(glob.escape(_default_cache()), identity + "-*", _REPORT_NAME)
    reports = sorted(glob.glob(pattern), key=os.path.getmtime, reverse=True)
    for report in reports:
        chosen = _json(report).get("recommended")
        if chosen is not None:
            return os.path.join(os.path.dirname(report), os.path.basename(chosen) + ".json")
    message = "no engine was built here from this kit: run build_engine.py, or give --program"
    raise Stopped("no-runtime", message)


def leading_numbers(version: str) -> Tuple[int, ...]:
    """(10, 13, 3) of "10.13.3.9.post1"."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split("."))[:3] if match else ()


def integer_inputs(version: Tuple[int, ...], artifact: Artifact) -> List[str]:
    """Inputs of INT64, which TensorRT takes as INT32 before version 9."""
    if version >= (9,):
        return []
    return [spec["name"] for spec in artifact.inputs if spec["dtype"] == "int64"]


def _default_cache() -> str:
    """As build_engine.py has it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "edgeship", "engines")


def _json(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
        if not isinstance(value, dict):
            raise ValueError("no object")
        return value
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> Stopped:
    return Stopped("damaged", f"{path} cannot be read: {type(error).__name__}: {error}")
