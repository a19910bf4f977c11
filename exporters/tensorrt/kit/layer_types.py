"""Layer types: which layers a build with weak types keeps in FP32, and how TensorRT is told.

A layer is kept with its outputs: one that is computed in FP32 and handed on in FP16 would be
infinite all the same. From 10.13 on kits have the types in the graph, and nothing is to be told.
"""

from typing import Any, Dict, Iterable, List, Optional

from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import Numbers, spelled

Nodes = Dict[str, List[Optional[str]]]
"""Outputs by node of the graph; None for an output that is no float32."""
FIRST_API = (8, 2)
"""First version with BuilderFlag.OBEY_PRECISION_CONSTRAINTS (python/src/infer/pyCore.cpp)."""
FIRST_TRTEXEC = (8, 5)
"""8.2 leaves --layerPrecisions over, 8.5 takes it; the parser of 8.4 was not tried."""
_SEPARATORS = ":,+*'\""
"""What splits the value of these options (samples/common/sampleOptions.cpp, 8.5 to 10.16)."""
_LONGEST = (32 << 12) - 1
"""Bytes of one argument of a program: MAX_ARG_STRLEN of Linux, with the 0 at its end."""


def layer_options(version: Numbers, nodes: Nodes) -> List[str]:
    """What trtexec is told; it finds layers by the exact name, which is that of the node.

    Raises:
        Stopped: "incompatible": its trtexec has no such options; "refused": it would read a name
            as another, or cannot be given so many.
    """
    if not nodes:
        return []
    if version[:2] < FIRST_TRTEXEC:
        message = (
            "{} layers must stay in FP32, from {} on, and trtexec {} cannot be told so: "
            "build with JetPack's Python package tensorrt (python3-libnvinfer)"
        )
        raise Stopped("incompatible", message.format(len(nodes), min(nodes), spelled(version)))
    for name in nodes:
        if any(character in name for character in _SEPARATORS):
            message = f"trtexec cannot be told of layer {name!r}: it reads {_SEPARATORS} otherwise"
            raise Stopped("refused", message)
    whole = [name for name, outputs in nodes.items() if None not in outputs]
    options = ["--precisionConstraints=obey", "--layerPrecisions=" + _types(nodes)]
    options += ["--layerOutputTypes=" + _types(whole)] if whole else []
    if any(len(option.encode("utf-8")) > _LONGEST for option in options):
        message = f"{len(nodes)} layers must stay in FP32: more than trtexec can be told of"
        raise Stopped("refused", message)
    return options


def keep_float32(trt: Any, network: Any, config: Any, nodes: Nodes) -> int:  # noqa: ANN401
    """Keep layers in FP32 through TensorRT's Python; returns how many of its layers that are.

    A node may have become several layers: those count that have its name or one of its outputs.

    Raises:
        Stopped: "incompatible": this version has no such flag; "refused": it has none of these
            layers, so that nothing would be kept.
    """
    flag = getattr(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS", None)
    if flag is None:
        message = "{} layers must stay in FP32, from {} on, and TensorRT {} cannot be told so"
        raise Stopped("incompatible", message.format(len(nodes), min(nodes), trt.__version__))
    config.set_flag(flag)
    outputs = {name for names in nodes.values() for name in names if name is not None}
    kept = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        results = [layer.get_output(place) for place in range(layer.num_outputs)]
        if layer.name in nodes or any(one is not None and one.name in outputs for one in results):
            _keep(layer, results, trt.DataType.FLOAT)
            kept += 1
    if not kept:
        message = "{} layers must stay in FP32, and TensorRT names none of them, like {}"
        raise Stopped("refused", message.format(len(nodes), min(nodes)))
    return kept


def _keep(layer: Any, results: List[Any], float32: Any) -> None:  # noqa: ANN401
    """Outputs that are no floats, such as indices, keep their type."""
    layer.precision = float32
    for place, one in enumerate(results):
        if one is not None and one.dtype == float32:
            layer.set_output_type(place, float32)


def _types(names: Iterable[str]) -> str:
    return ",".join(name + ":fp32" for name in names)
