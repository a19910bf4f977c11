"""Artifact: a directory with a manifest, every file of which is what was built."""

import hashlib
import json
import os
from typing import Any, Dict, List

from edgeship.device_tests.board.stopped import Stopped

MANIFEST_NAME = "manifest.json"
_SCHEMA = 1
_NOT_IN_ID = ("artifact_id", "evidence")
_BLOCK_BYTES = 1 << 20
_SUFFIXES = (".tflite", ".onnx", ".gguf")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Artifact:
    """What the manifest says, and where its files are.

    Attributes:
        directory: Of the manifest.
        manifest: As JSON.
        inputs: Contract of the inputs, in order; each a dict with "name", "shape", "dtype" and what
            is set of "layout", "scale", "zero_point", "preprocess".
        outputs: The same of the outputs.
        model: Path of the file that a runtime loads.
    """

    def __init__(self, directory: str, manifest: Dict[str, Any]) -> None:
        self.directory = directory
        self.manifest = manifest
        self.inputs: List[Dict[str, Any]] = manifest["contract"]["inputs"]
        self.outputs: List[Dict[str, Any]] = manifest["contract"]["outputs"]
        names = [file["name"] for file in manifest["files"] if file["role"] == "model"]
        loadable = [name for name in names if name.endswith(_SUFFIXES)]
        self.model = self.path(loadable[0]) if loadable else ""

    def path(self, name: str) -> str:
        """Where a file of it is."""
        return os.path.join(self.directory, *name.split("/"))


def read_artifact(directory: str) -> Artifact:
    """Read a manifest, and every file that it lists against its digest.

    Raises:
        Stopped: "damaged"; the message names the first file that is not what was built.
    """
    path = os.path.join(directory, MANIFEST_NAME)
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        artifact = _checked(directory, manifest)
    except _UNREADABLE as error:
        text = f"{type(error).__name__}: {error}"
        raise Stopped("damaged", f"{path} cannot be read: {text}") from error
    for entry in manifest["files"]:
        _require_whole(artifact.path(entry["name"]), entry)
    if not artifact.model:
        raise Stopped("refused", "the artifact has no file that a runtime here loads")
    return artifact


def _checked(directory: str, manifest: Dict[str, Any]) -> Artifact:
    if manifest["schema"] != _SCHEMA:
        message = "schema {!r} instead of {}".format(manifest["schema"], _SCHEMA)
        raise ValueError(message)
    for entry in manifest["files"]:
        parts = entry["name"].split("/")
        if os.path.isabs(entry["name"]) or ".." in parts or "" in parts:
            message = "file name {!r}".format(entry["name"])
            raise ValueError(message)
    facts = {key: item for key, item in manifest.items() if key not in _NOT_IN_ID}
    if manifest["artifact_id"] != _json_sha256(facts):
        message = "it was changed after it was sealed (artifact_id)"
        raise ValueError(message)
    return Artifact(directory, manifest)


def _json_sha256(value: object) -> str:
    """Of the canonical form, as the manifest's writer has it: sorted keys, no spaces."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _require_whole(path: str, entry: Dict[str, Any]) -> None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            block = file.read(_BLOCK_BYTES)
            while block:
                digest.update(block)
                block = file.read(_BLOCK_BYTES)
    except OSError as error:
        message = "{} cannot be read: {}".format(entry["name"], error.strerror)
        raise Stopped("damaged", message) from error
    if digest.hexdigest() != entry["sha256"]:
        raise Stopped("damaged", "{} is not the file that was built".format(entry["name"]))
