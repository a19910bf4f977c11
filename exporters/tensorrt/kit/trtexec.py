"""trtexec: its command lines, for every version that this kit knows.

`--int8` never goes without a graph that has Q/DQ: trtexec would invent ranges of 2 and 4
(samples/common/sampleEngines.cpp, setTensorDynamicRange). What is measured is the same on every
version: transfers included, no CUDA graph, no spin wait, one stream. From 11 on the defaults are
the opposite, so that they have to be said there, and cannot be before.
"""

from typing import Dict, List, NamedTuple

from edgeship.exporters.tensorrt.kit.kit_file import Flags
from edgeship.exporters.tensorrt.kit.layer_types import layer_options
from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import Numbers, generation_of, spelled

_SEPARATORS = ":,'\""
"""`--loadInputs=name:file,name:file`: a name or path with one of these would be read as another."""
_SHOWN_PERCENTILE = 99
"""8.2 takes one number, so the same one is given everywhere; ours come from the trace."""


class Settings(NamedTuple):
    """How long is measured: at least `duration_s` and `iterations`, after `warm_up_ms`."""

    warm_up_ms: int
    duration_s: int
    iterations: int


def build_command(
    program: str,
    version: Numbers,
    *,
    onnx: str,
    engine: str,
    timing_cache: str,
    workspace_mib: int,
    flags: Flags,
) -> List[str]:
    """Build an engine and measure nothing.

    Raises:
        Stopped: "incompatible": this version has no way to build such a graph; "refused": it
            cannot be told of the layers that stay in FP32.
    """
    generation = generation_of(version)
    command = [program, "--onnx=" + onnx, "--saveEngine=" + engine]
    command.append("--timingCacheFile=" + timing_cache)
    if generation.has_workspace_size:
        command.append(f"--workspace={workspace_mib}")
    else:
        command.append(f"--memPoolSize=workspace:{workspace_mib}M")
    command += precision_options(version, flags)
    command += layer_options(version, flags["float32_nodes"])
    command.append(generation.build_only)
    return command


def precision_options(version: Numbers, flags: Flags) -> List[str]:
    """What a version is told of the types; raises Stopped, "incompatible"."""
    generation = generation_of(version)
    if flags["strongly_typed"]:
        if generation.has_typed_networks:
            return ["--stronglyTyped"]
        if generation.has_precision_flags:
            message = "TensorRT {} has no strongly typed networks".format(spelled(version))
            raise Stopped("incompatible", message)
        return []
    if not generation.has_precision_flags:
        message = "TensorRT {} takes the types from the graph, and this graph does not have them"
        raise Stopped("incompatible", message.format(spelled(version)))
    return ["--" + name for name in ("fp16", "int8") if flags[name]]


def bench_command(
    program: str,
    version: Numbers,
    *,
    engine: str,
    inputs: Dict[str, str],
    times: str,
    settings: Settings,
) -> List[str]:
    """Measure an engine on given inputs; each query's times go to the file `times`."""
    generation = generation_of(version)
    command = [program, "--loadEngine=" + engine, "--loadInputs=" + load_inputs(inputs)]
    command += [
        f"--warmUp={settings.warm_up_ms}",
        f"--duration={settings.duration_s}",
        f"--iterations={settings.iterations}",
        f"{generation.streams}=1",
        f"--percentile={_SHOWN_PERCENTILE}",
        "--exportTimes=" + times,
    ]
    if generation.is_quick_by_default:
        command += ["--includeDataTransfers", "--noCudaGraph", "--noSpinWait"]
    return command


def load_inputs(inputs: Dict[str, str]) -> str:
    """Value of `--loadInputs`: files by input.

    Raises:
        Stopped: "refused": trtexec would read a name or a path as another.
    """
    for text in [*inputs, *inputs.values()]:
        if any(character in text for character in _SEPARATORS):
            message = f"trtexec cannot be given {text!r}: it reads {_SEPARATORS} as separators"
            raise Stopped("refused", message)
    return ",".join(f"{name}:{path}" for name, path in inputs.items())
