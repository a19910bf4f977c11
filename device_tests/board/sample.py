"""Sample: a part of the evaluation data through a runtime; what comes out goes back as files.

A directory with sample.json and its little-endian files, for tensors

    {"schema": 1, "count": N, "inputs": [{"name", "file", "dtype", "shape"}]}

each file N arrays of that shape one after the other, or for a language model

    {"schema": 1, "count": N, "chunks": {"file", "dtype", "lengths": [tokens of each chunk]}}
"""

import hashlib
import json
import os
from typing import Any, Dict, List

import numpy as np

from edgeship.device_tests.board.lines import Lines
from edgeship.device_tests.board.session import Session
from edgeship.device_tests.board.stopped import Stopped
from edgeship.device_tests.board.tensors import little_endian

_SCHEMA = 1


class _Output:
    """One file of equal arrays, with its digest."""

    def __init__(self, directory: str, name: str, first: np.ndarray, index: int) -> None:
        self.file = f"output{index}.bin"
        self._name = name
        self._dtype = first.dtype.name
        self._shape = [int(size) for size in first.shape]
        self._digest = hashlib.sha256()
        self._path = os.path.join(directory, self.file)
        with open(self._path, "wb"):  # of an earlier run
            pass

    def add(self, values: np.ndarray) -> None:
        content = little_endian(values)
        self._digest.update(content)
        with open(self._path, "ab") as file:
            file.write(content)

    def entry(self) -> Dict[str, object]:
        """Its entry."""
        return {
            "name": self._name,
            "file": self.file,
            "dtype": self._dtype,
            "shape": self._shape,
            "sha256": self._digest.hexdigest(),
        }


def run_sample(session: Session, directory: str, outputs: str, lines: Lines) -> None:
    """Run all of it; says "sample" with the files below `outputs`, or with why there are none.

    Tensors: each output of the file, as it gives it. Chunks: "loss" float64[1], the summed negative
    log-likelihood in nats of each token but the first, and "tokens" int64[1], how many these are.

    Raises:
        Stopped: The sample cannot be read.
    """
    try:
        with open(os.path.join(directory, "sample.json"), encoding="utf-8") as file:
            described = json.load(file)
        if described["schema"] != _SCHEMA:
            message = "schema {!r}".format(described["schema"])
            raise ValueError(message)
        rows = _chunks(directory, described) if "chunks" in described else None
        tensors = None if rows is not None else _Tensors(directory, described)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Stopped("damaged", f"the sample cannot be read: {error}") from error
    os.makedirs(outputs, exist_ok=True)
    files: List[_Output] = []
    for index in range(described["count"]):
        if tensors is not None:
            found = session.run(tensors.inputs(index))
        else:
            assert rows is not None  # one of both
            if not hasattr(session, "chunk_loss"):
                reason = "llama-server gives no likelihood of a given text: not measured"
                lines.say("sample", count=0, outputs=[], message=reason)
                return
            loss, count = session.chunk_loss(rows[index])
            found = {"loss": np.array([loss]), "tokens": np.array([count], np.int64)}
        if not files:
            files = [
                _Output(outputs, name, values, at)
                for at, (name, values) in enumerate(found.items())
            ]
        for file_, values in zip(files, found.values()):
            file_.add(values)
    entries = [item.entry() for item in files]
    lines.say("sample", count=described["count"], outputs=entries, message=None)


class _Tensors:
    """Inputs of one sample at a time, out of files that are not read as a whole."""

    def __init__(self, directory: str, described: Dict[str, Any]) -> None:
        self._entries: List[Dict[str, Any]] = described["inputs"]
        self._directory = directory
        for entry in self._entries:
            size = os.path.getsize(os.path.join(directory, entry["file"]))
            if size != described["count"] * self._bytes(entry):
                message = "{} has {} bytes".format(entry["file"], size)
                raise ValueError(message)

    def inputs(self, index: int) -> Dict[str, np.ndarray]:
        found = {}
        for entry in self._entries:
            with open(os.path.join(self._directory, entry["file"]), "rb") as file:
                file.seek(index * self._bytes(entry))
                content = file.read(self._bytes(entry))
            dtype = np.dtype(entry["dtype"])
            values = np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype)
            found[entry["name"]] = values.reshape(entry["shape"])
        return found

    def _bytes(self, entry: Dict[str, Any]) -> int:
        size: int = np.dtype(entry["dtype"]).itemsize
        for length in entry["shape"]:
            size *= length
        return size


def _chunks(directory: str, described: Dict[str, Any]) -> List[List[int]]:
    entry = described["chunks"]
    with open(os.path.join(directory, entry["file"]), "rb") as file:
        ids = np.frombuffer(file.read(), np.dtype(entry["dtype"]).newbyteorder("<")).tolist()
    lengths = entry["lengths"]
    if len(lengths) != described["count"] or sum(lengths) != len(ids):
        message = f"{len(ids)} tokens in {len(lengths)} chunks"
        raise ValueError(message)
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return [ids[start : start + length] for start, length in zip(starts, lengths)]
