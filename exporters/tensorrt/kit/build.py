"""Build: one graph to a candidate engine, in a fresh process."""

import os
import shutil
import time
from typing import Any, Dict, List

from edgeship.exporters.tensorrt.kit.child import stopped_of
from edgeship.exporters.tensorrt.kit.engines import RECORD_SCHEMA, Record, Store, sync, write_json
from edgeship.exporters.tensorrt.kit.kit_file import Graph, Kit, file_sha256
from edgeship.exporters.tensorrt.kit.onnx_wire import read_graph
from edgeship.exporters.tensorrt.kit.process import Ended, death_of, run_process
from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import spelled
from edgeship.exporters.tensorrt.kit.toolchain import Toolchain
from edgeship.exporters.tensorrt.kit.trtexec import build_command
from edgeship.exporters.tensorrt.kit.trtexec_output import is_passed


def require_buildable(kit: Kit, graph: Graph) -> None:
    """What must be so before TensorRT sees a graph.

    Raises:
        Stopped: "refused": INT8 without Q/DQ, for which TensorRT has no ranges, or Q/DQ without
            INT8; "damaged": not the graph that kit.json describes.
    """
    facts = read_graph(graph.path)
    is_int8 = graph.flags["int8"] or graph.precision == "int8"
    file = os.path.basename(graph.path)
    if is_int8 and not facts.has_quantization:
        message = "{} has no Q/DQ: TensorRT would invent the ranges of INT8".format(file)
        raise Stopped("refused", message)
    if facts.has_quantization and not is_int8:
        message = "{} has Q/DQ and is not built for INT8: kit.json and graph disagree".format(file)
        raise Stopped("refused", message)
    if facts.opset != kit.opset:
        message = "{} has opset {}, and kit.json says {}".format(file, facts.opset, kit.opset)
        raise Stopped("damaged", message)


def build_candidate(
    kit: Kit,
    graph: Graph,
    toolchain: Toolchain,
    store: Store,
    *,
    workspace_mib: int,
    child: List[str],
    deadline_s: float,
) -> Record:
    """Build the candidate of a graph, with its record; what TensorRT says goes to a log beside it.

    Raises:
        Stopped: "build-failed", "refused", "out-of-memory", "killed", "timeout": nothing that
            served is changed.
    """
    engine = store.path(graph.name + ".new.plan")
    timing_cache = store.path(graph.name + ".new.timing")
    if os.path.exists(store.timing_cache):
        shutil.copyfile(store.timing_cache, timing_cache)
    request: Dict[str, Any] = {
        "onnx": graph.path,
        "engine": engine,
        "timing_cache": timing_cache,
        "workspace_mib": workspace_mib,
        "flags": graph.flags,
    }
    if toolchain.has_python:
        path = store.path(graph.name + ".new.request")
        write_json(path, request)
        command = [*child, "build", path]
    else:
        assert toolchain.trtexec is not None  # one of both is there
        command = build_command(toolchain.trtexec, toolchain.version, **request)
    ended = run_process(command, deadline_s, log=store.path(graph.name + ".log"))
    _require_built(ended, graph, engine, is_program=not toolchain.has_python)
    if os.path.exists(timing_cache):
        os.replace(timing_cache, store.timing_cache)
    record = _record(kit, graph, toolchain, engine, ended)
    record["workspace_mib"] = workspace_mib
    sync(engine)  # the record that names it goes there too, and the one before is removed
    os.replace(engine, store.path(record["file"]))
    write_json(store.candidate_path(graph), record)
    return record


def _require_built(ended: Ended, graph: Graph, engine: str, *, is_program: bool) -> None:
    what = "the build of " + graph.name
    own = stopped_of(ended.lines)
    if own is not None:
        raise own
    is_verdict = is_passed(ended.lines) if is_program else True
    if ended.status != 0 or ended.is_late or not is_verdict:
        raise death_of(ended, what)
    if not os.path.exists(engine) or os.path.getsize(engine) == 0:
        raise Stopped("build-failed", what + " ended well and left no engine")


def _record(kit: Kit, graph: Graph, toolchain: Toolchain, engine: str, ended: Ended) -> Record:
    digest = file_sha256(engine)
    return {
        "schema": RECORD_SCHEMA,
        "artifact_id": kit.artifact_id,
        "target": kit.target,
        "graph": graph.name,
        "graph_sha256": graph.sha256,
        "precision": graph.precision,
        "flags": graph.flags,
        "tensorrt": spelled(toolchain.version),
        "sm": toolchain.sm,
        "way": toolchain.way,
        "trtexec": toolchain.trtexec,
        "file": "{}-{}.plan".format(graph.name, digest[:12]),
        "bytes": os.path.getsize(engine),
        "sha256": digest,
        "build_seconds": round(ended.seconds, 1),
        "build_peak_bytes": ended.peak_bytes,
        "built_at": now(),
    }


def now() -> str:
    """UTC, as evidence writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
