"""Engines: where built ones lie, and whether one is of this kit, this TensorRT, this GPU.

`<cache>/<artifact_id, 16 digits>-trt<version>-sm<SM>/<graph>.json` is the record of an engine and
names its file. Publishing replaces the record, in one step: what was there before serves until
then, and a build that is killed leaves it as it was.
"""

import contextlib
import fcntl
import json
import os
from typing import Any, Dict, Iterator, Optional

from edgeship.exporters.tensorrt.kit.kit_file import Graph, Kit, file_sha256
from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import Numbers, spelled

RECORD_SCHEMA = 1
REPORT_NAME = "engine_report.json"
_NEW = ".new"
_ID_DIGITS = 16
_LOCK_NAME = ".lock"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)

Record = Dict[str, Any]
"""Keys: schema, artifact_id, target, name, graph, graph_sha256, precision, flags, tensorrt, sm,
way, trtexec, workspace_mib, file, bytes, sha256, build_seconds, build_peak_bytes, built_at."""


def default_cache() -> str:
    """`$XDG_CACHE_HOME/edgeship/engines`; the board archive looks there too."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "edgeship", "engines")


class Store:
    """The engines of one kit on one TensorRT and one GPU.

    Attributes:
        directory: Of the records.
        timing_cache: What earlier builds on this TensorRT and GPU learnt, of any kit.
    """

    def __init__(self, cache: str, kit: Kit, version: Numbers, sm: str) -> None:
        system = f"trt{spelled(version)}-sm{sm}"
        self.directory = os.path.join(cache, f"{kit.artifact_id[:_ID_DIGITS]}-{system}")
        self.timing_cache = os.path.join(cache, f"timing-{system}.cache")
        self._kit = kit
        self._version = version
        self._sm = sm

    def path(self, name: str) -> str:
        """Of a file of it."""
        return os.path.join(self.directory, name)

    def record_path(self, graph: Graph) -> str:
        """Of the engine that serves."""
        return self.path(graph.name + ".json")

    def candidate_path(self, graph: Graph) -> str:
        """Of the engine that was built and not yet compared."""
        return self.path(graph.name + _NEW + ".json")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other builds out; clear away what killed ones left.

        Raises:
            Stopped: "busy": another one runs.
        """
        os.makedirs(self.directory, exist_ok=True)
        with open(self.path(_LOCK_NAME), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                message = f"another build works in {self.directory}: wait for it"
                raise Stopped("busy", message) from error
            self.clear()
            yield

    def published(self, graph: Graph) -> Optional[Record]:
        """Record of the engine that serves; None where there is none.

        Raises:
            Stopped: "foreign": of another kit, TensorRT or GPU; "damaged".
        """
        path = self.record_path(graph)
        if not os.path.exists(path):
            return None
        record = read_record(path)
        expected = {
            "artifact_id": self._kit.artifact_id,
            "graph_sha256": graph.sha256,
            "flags": graph.flags,
            "tensorrt": spelled(self._version),
            "sm": self._sm,
        }
        for key, value in expected.items():
            if record.get(key) != value:
                message = f"{path} is of {key} {record.get(key)!r}, not {value!r}"
                raise Stopped("foreign", message)
        require_whole(path, record)
        return record

    def engine(self, graph: Graph) -> Optional[str]:
        """File of the engine that serves, below the cache; None where none does."""
        try:
            record = self.published(graph)
        except Stopped:
            return None
        if record is None:
            return None
        return "{}/{}".format(os.path.basename(self.directory), record["file"])

    def last_report(self) -> Dict[str, Any]:
        """What the last run reported; {} where nothing that can be read."""
        try:
            with open(self.path(REPORT_NAME), encoding="utf-8") as file:
                return dict(json.load(file))
        except _UNREADABLE:
            return {}

    def publish(self, graph: Graph) -> None:
        """Let the candidate serve from now on; the one before goes."""
        os.replace(self.candidate_path(graph), self.record_path(graph))
        sync(self.directory)
        self.clear()

    def clear(self) -> None:
        """Remove what no record names: candidates, and engines that were replaced."""
        kept = {_LOCK_NAME, REPORT_NAME}
        for name in os.listdir(self.directory):
            if name.endswith(".json") and not name.endswith(_NEW + ".json"):
                kept.add(name)
                with contextlib.suppress(Stopped):
                    kept.add(str(read_record(self.path(name)).get("file")))
        for name in os.listdir(self.directory):
            if name not in kept and not name.endswith(".log"):
                os.remove(self.path(name))


def read_record(path: str) -> Record:
    """A record as it is written; raises Stopped, "damaged"."""
    try:
        with open(path, encoding="utf-8") as file:
            record: Record = json.load(file)
        if record["schema"] != RECORD_SCHEMA:
            raise ValueError("schema {!r}".format(record["schema"]))
        return record
    except _UNREADABLE as error:
        text = f"{path} cannot be read: {type(error).__name__}: {error}"
        raise Stopped("damaged", text) from error


def require_whole(path: str, record: Record) -> None:
    """Raises Stopped, "damaged", where the engine is not the one that was built."""
    engine = engine_path(path, record)
    try:
        is_whole = file_sha256(engine) == record["sha256"]
    except OSError as error:
        raise Stopped("damaged", f"{engine} cannot be read: {error.strerror}") from error
    if not is_whole:
        raise Stopped("damaged", f"{engine} is not the engine that was built")


def engine_path(path: str, record: Record) -> str:
    """Where the engine of a record is."""
    return os.path.join(os.path.dirname(path), os.path.basename(str(record["file"])))


def write_json(path: str, value: Dict[str, Any]) -> None:
    """Write a file atomically."""
    temporary = f"{path}.{os.getpid()}.part"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(os.path.dirname(path))


def sync(path: str) -> None:
    """Have a file, or the names in a directory, on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
