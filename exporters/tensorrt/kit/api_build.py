"""API build: one engine with TensorRT's Python package, in a process of its own."""

import os
import sys
from typing import Any, Optional

from edgeship.exporters.tensorrt.kit.kit_file import Flags
from edgeship.exporters.tensorrt.kit.layer_types import keep_float32
from edgeship.exporters.tensorrt.kit.stopped import Stopped, first_line
from edgeship.exporters.tensorrt.kit.tensorrt_version import (
    Generation,
    generation_of,
    numbers,
    spelled,
)
from edgeship.exporters.tensorrt.kit.trtexec import precision_options

TensorRt = Any
"""The module `tensorrt`, which has no types for all versions."""


def build_engine(
    trt: TensorRt,
    *,
    onnx: str,
    engine: str,
    timing_cache: str,
    workspace_mib: int,
    flags: Flags,
) -> None:
    """Write the engine of a graph, and the timing cache with what was learnt.

    Raises:
        Stopped: "build-failed", "refused" (TensorRT does not take the graph), "incompatible".
    """
    version = numbers(trt.__version__)
    generation = generation_of(version)
    precision_options(version, flags)
    logger = trt.Logger(trt.Logger.INFO)
    builder = trt.Builder(logger)
    if flags["int8"] and generation.has_precision_flags and not builder.platform_has_fast_int8:
        raise Stopped("refused", "this GPU has no INT8, and the graph is for INT8")
    network = builder.create_network(_network_flags(trt, generation, flags))
    parser = trt.OnnxParser(network, logger)
    with open(onnx, "rb") as file:
        if not parser.parse(file.read()):
            raise Stopped("refused", _errors(parser))
    config = builder.create_builder_config()
    _set_workspace(trt, config, generation, workspace_mib)
    if generation.has_precision_flags and not flags["strongly_typed"]:
        for name in ("fp16", "int8"):
            if flags[name]:
                config.set_flag(getattr(trt.BuilderFlag, name.upper()))
    if flags["float32_nodes"]:
        kept = keep_float32(trt, network, config, flags["float32_nodes"])
        sys.stdout.write(f"{kept} layers stay in FP32\n")  # to the log of the build
    _load_timing_cache(config, timing_cache)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        message = "TensorRT {} gave no engine: its messages say why".format(spelled(version))
        raise Stopped("build-failed", message)
    _write(engine, serialized)
    learnt = config.get_timing_cache()
    if learnt is not None:
        _write(timing_cache, learnt.serialize())


def _network_flags(trt: TensorRt, generation: Generation, flags: Flags) -> int:
    """Bits of NetworkDefinitionCreationFlag, which has other members in each generation."""
    members = trt.NetworkDefinitionCreationFlag
    if generation.has_implicit_batch:
        return 1 << int(members.EXPLICIT_BATCH)
    if generation.has_typed_networks and flags["strongly_typed"]:
        return 1 << int(members.STRONGLY_TYPED)
    return 0


def _set_workspace(trt: TensorRt, config: Any, generation: Generation, mib: int) -> None:  # noqa: ANN401
    if generation.has_workspace_size:
        config.max_workspace_size = mib << 20
    else:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, mib << 20)


def _load_timing_cache(config: Any, path: str) -> None:  # noqa: ANN401 - IBuilderConfig
    """Begin with what earlier builds learnt; an unusable file is as good as none."""
    content = b""
    if os.path.exists(path):
        with open(path, "rb") as file:
            content = file.read()
    cache: Optional[Any] = config.create_timing_cache(content)
    if content and (cache is None or not config.set_timing_cache(cache, False)):
        cache, content = config.create_timing_cache(b""), b""
    if not content and cache is not None:
        config.set_timing_cache(cache, False)


def _errors(parser: Any) -> str:  # noqa: ANN401 - OnnxParser
    """Why TensorRT's parser does not take a graph."""
    said = [first_line(parser.get_error(index).desc()) for index in range(parser.num_errors)]
    return "TensorRT does not take the graph: " + ("; ".join(said[:3]) or "it does not say why")


def _write(path: str, content: Any) -> None:  # noqa: ANN401 - a buffer
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
