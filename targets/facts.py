"""Facts: what a stage may read of a target, as values for its cache key."""

from __future__ import annotations

from collections.abc import Mapping

from edgeship.targets.target import Target
from edgeship.vocabulary import Format


def target_facts(target: Target, format: Format) -> Mapping[str, object]:
    """The facts of `target` that the files of `format` may depend on, as JSON has them.

    Two targets with equal facts share the cached files of a stage. Names, boards, memory, sources,
    reasons and default precisions are left out: a stage that writes files reads none of them.
    """
    facts = target.formats[format]
    keys: dict[str, object] = {}
    match format:
        case Format.ONNX:
            activation = facts.activation_type
            keys["activation_type"] = None if activation is None else str(activation)
            keys["reduce_range"] = facts.reduce_range
        case Format.GGUF:
            keys["arch"] = str(target.cpu.arch)
            keys["features"] = sorted(target.cpu.features)
        case Format.TENSORRT:
            gpu = target.gpu
            keys["sm"] = None if gpu is None else gpu.sm
            keys["dla"] = None if gpu is None else gpu.dla
            keys["engine_precisions"] = [] if gpu is None else list(gpu.precisions)
            keys["python"] = target.os.python
            keys["tensorrt"] = target.os.tensorrt
        case Format.TFLITE:
            keys["runtimes"] = [
                {"name": str(item.name), "version": item.version} for item in facts.runtimes
            ]
    return keys
