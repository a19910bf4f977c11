"""Golden: the cases that travel with an artifact, and how a runtime's answers compare."""

import json
import os
from typing import Any, Dict, List, Optional

import numpy as np

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.compare import compare
from edgeship.device_tests.board.stopped import Stopped
from edgeship.device_tests.board.tensors import read_tensor

_DIRECTORY = "golden"
_PACK_NAME = "golden.json"
_SCHEMA = 1
_MEAN_ROUNDING = 1e-9
"""A mean of shares, and 1 - limit, are rounded."""


class Case:
    """One sample.

    Attributes:
        name: Of the sample.
        raw: uint8[H, W, C] pixels, RGB or grey; None for what is no image.
        inputs: As the artifact takes them, by name.
        expect: Entries of the pack, each with the key "values".
    """

    def __init__(self, directory: str, entry: Dict[str, Any]) -> None:
        self.name = str(entry["id"])
        self.raw: Optional[np.ndarray] = None
        if "raw" in entry:
            self.raw = _read_raw(directory, entry["raw"])
        self.inputs = {item["name"]: read_tensor(directory, item) for item in entry["inputs"]}
        self.expect = [dict(item, values=read_tensor(directory, item)) for item in entry["expect"]]


def read_cases(artifact: Artifact) -> List[Case]:
    """The golden pack of an artifact, whose files were checked.

    Raises:
        Stopped: There is none, or it is of another schema.
    """
    directory = artifact.path(_DIRECTORY)
    try:
        with open(os.path.join(directory, _PACK_NAME), encoding="utf-8") as file:
            pack = json.load(file)
        if pack["schema"] != _SCHEMA:
            message = "schema {!r}".format(pack["schema"])
            raise ValueError(message)
        cases = [Case(directory, entry) for entry in pack["cases"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"{type(error).__name__}: {error}"
        raise Stopped("damaged", "the golden pack cannot be read: " + text) from error
    if not cases:
        raise Stopped("damaged", "the golden pack has no cases")
    return cases


def judge(
    case: Case, outputs: Dict[str, np.ndarray], artifact: Artifact
) -> List[Dict[str, object]]:
    """Each expectation of a case against what came: keys of a "case" event."""
    specs = {spec["name"]: spec for spec in artifact.outputs}
    judged = []
    for item in case.expect:
        event: Dict[str, object] = {"case": case.name, "name": item["name"], "of": item["of"]}
        event.update(compare(outputs.get(item["name"]), item, specs.get(item["name"], {})))
        judged.append(event)
    return judged


def judge_together(judged: List[Dict[str, object]]) -> List[Dict[str, object]]:
    """What is held against its limit over all cases: the mean share of tokens that differ."""
    differences: Dict[str, List[float]] = {}
    limits: Dict[str, float] = {}
    for event in judged:
        if event["kind"] == "tokens":
            difference, limit = event["difference"], event["limit"]
            assert isinstance(limit, float)  # compare made it one
            found = difference if isinstance(difference, float) else 1.0
            differences.setdefault(str(event["of"]), []).append(found)
            limits[str(event["of"])] = limit
    together = []
    for of, values in differences.items():
        mean, limit = sum(values) / len(values), limits[of]
        event = {"case": "all", "name": "tokens", "of": of, "kind": "tokens"}
        is_ok = mean <= limit + _MEAN_ROUNDING
        together.append(dict(event, difference=mean, limit=limit, is_ok=is_ok, message=None))
    return together


def _read_raw(directory: str, entry: Dict[str, Any]) -> np.ndarray:
    """The pixels of a case. Their entry has no shape: the contract's input says it."""
    path = os.path.join(directory, entry["file"])
    size = os.path.getsize(path)
    return read_tensor(directory, {"file": entry["file"], "dtype": entry["dtype"], "shape": [size]})
