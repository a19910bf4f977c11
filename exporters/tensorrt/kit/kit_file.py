"""Kit file: kit.json and the manifest beside it, every file of which is what was sealed."""

import hashlib
import json
import os
from typing import Any, Dict, List, NamedTuple

from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import Numbers, numbers

KIT_NAME = "kit.json"
BOARD_ARCHIVE_NAME = "edgeship-board.pyz"
_MANIFEST_NAME = "manifest.json"
_SCHEMA = 1
_NOT_IN_ID = ("artifact_id", "evidence")
_BLOCK_BYTES = 1 << 20
_MOST_SHARE = 0.25
"""Of the free memory, whatever kit.json says: builds on boards of 2 to 8 GB are killed otherwise
(NVIDIA/TensorRT issue 1404, jkjung-avt/tensorrt_demos issue 344)."""
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


Flags = Dict[str, Any]
"""What a TensorRT has to be told of a graph: "fp16", "int8", "strongly_typed", which are booleans,
and "float32_nodes", the `Nodes` of layer_types.py."""


class Graph(NamedTuple):
    """One ONNX file to build an engine from.

    Attributes:
        name: "fp16" or "int8".
        path: Of the file.
        precision: What the engine is for.
        flags: What its TensorRT has to be told.
        sha256: Of the file.
    """

    name: str
    path: str
    precision: str
    flags: Flags
    sha256: str


class Kit(NamedTuple):
    """A checked kit.

    Attributes:
        directory: Of kit.json.
        artifact_id: Of the manifest.
        target: That the manifest names.
        tensorrt: The version that it was prepared for.
        accepts: Major and minor version that it may be built with.
        sm: Compute capability of the target's GPU, "8.7".
        opset: Of its graphs.
        workspace_share: Of the free memory, that TensorRT's workspace may take.
        memory_bytes: That the manifest forecasts; 0 where it does not.
        graphs: In the order in which they are built.
        inputs: Of the contract, each with "name", "dtype", "shape".
        golden_inputs: Files of the first golden case by input.
    """

    directory: str
    artifact_id: str
    target: str
    tensorrt: Numbers
    accepts: str
    sm: str
    opset: int
    workspace_share: float
    memory_bytes: int
    graphs: List[Graph]
    inputs: List[Dict[str, Any]]
    golden_inputs: Dict[str, str]

    @property
    def board_archive(self) -> str:
        """What compares and measures on a board."""
        return os.path.join(self.directory, BOARD_ARCHIVE_NAME)


def read_kit(directory: str) -> Kit:
    """Read a kit, and every file that its manifest lists against its digest.

    Raises:
        Stopped: "damaged": the message names the first file that is not what was sealed.
    """
    manifest = _read(os.path.join(directory, _MANIFEST_NAME), _checked_manifest)
    for entry in manifest["files"]:
        _require_whole(directory, entry)
    digests = {entry["name"]: str(entry["sha256"]) for entry in manifest["files"]}
    for name in (KIT_NAME, BOARD_ARCHIVE_NAME, "golden/golden.json"):
        if name not in digests:
            raise Stopped("damaged", f"the manifest lists no {name}: this is no engine kit")
    described = _read(os.path.join(directory, KIT_NAME), _checked_schema)
    pack = _read(os.path.join(directory, "golden", "golden.json"), dict)
    try:
        return _kit(directory, manifest, described, pack, digests)
    except _UNREADABLE as error:
        text = f"{KIT_NAME} cannot be read: {type(error).__name__}: {error}"
        raise Stopped("damaged", text) from error


def _kit(
    directory: str,
    manifest: Dict[str, Any],
    described: Dict[str, Any],
    pack: Dict[str, Any],
    digests: Dict[str, str],
) -> Kit:
    case = pack["cases"][0]
    share = float(described["workspace_share"])
    return Kit(
        directory=directory,
        artifact_id=manifest["artifact_id"],
        target=str(manifest["target"]),
        tensorrt=numbers(described["tensorrt"]["version"]),
        accepts=str(described["tensorrt"]["accepts"]),
        sm=str(described["tensorrt"]["sm"]),
        opset=int(described["opset"]),
        workspace_share=min(share, _MOST_SHARE),
        memory_bytes=int(manifest["requires"].get("memory_bytes") or 0),
        graphs=[_graph(directory, entry, digests) for entry in described["graphs"]],
        inputs=manifest["contract"]["inputs"],
        golden_inputs={
            item["name"]: os.path.join(directory, "golden", item["file"]) for item in case["inputs"]
        },
    )


def _graph(directory: str, entry: Dict[str, Any], digests: Dict[str, str]) -> Graph:
    flags: Flags = {name: bool(entry["flags"][name]) for name in ("fp16", "int8", "strongly_typed")}
    flags["float32_nodes"] = {
        str(name): list(outputs) for name, outputs in entry["float32_nodes"].items()
    }
    return Graph(
        name=str(entry["name"]),
        path=os.path.join(directory, entry["file"]),
        precision=str(entry["precision"]),
        flags=flags,
        sha256=digests[entry["file"]],
    )


def _read(path: str, check: Any) -> Dict[str, Any]:  # noqa: ANN401 - JSON to JSON
    try:
        with open(path, encoding="utf-8") as file:
            value: Dict[str, Any] = check(json.load(file))
        return value
    except _UNREADABLE as error:
        text = f"{type(error).__name__}: {error}"
        raise Stopped("damaged", f"{path} cannot be read: {text}") from error


def _checked_schema(value: Dict[str, Any]) -> Dict[str, Any]:
    if value["schema"] != _SCHEMA:
        raise ValueError("schema {!r} instead of {}".format(value["schema"], _SCHEMA))
    return value


def _checked_manifest(value: Dict[str, Any]) -> Dict[str, Any]:
    _checked_schema(value)
    for entry in value["files"]:
        parts = entry["name"].split("/")
        if os.path.isabs(entry["name"]) or ".." in parts or "" in parts:
            raise ValueError("file name {!r}".format(entry["name"]))
    facts = {key: item for key, item in value.items() if key not in _NOT_IN_ID}
    text = json.dumps(
        facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    if value["artifact_id"] != hashlib.sha256(text.encode("utf-8")).hexdigest():
        raise ValueError("it was changed after it was sealed (artifact_id)")
    return value


def _require_whole(directory: str, entry: Dict[str, Any]) -> None:
    path = os.path.join(directory, *entry["name"].split("/"))
    try:
        found = file_sha256(path)
    except OSError as error:
        message = "{} cannot be read: {}".format(entry["name"], error.strerror)
        raise Stopped("damaged", message) from error
    if found != entry["sha256"]:
        raise Stopped("damaged", "{} is not the file that was sealed".format(entry["name"]))


def file_sha256(path: str) -> str:
    """Of the contents, in lower-case hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        block = file.read(_BLOCK_BYTES)
        while block:
            digest.update(block)
            block = file.read(_BLOCK_BYTES)
    return digest.hexdigest()
