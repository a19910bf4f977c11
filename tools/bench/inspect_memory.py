"""Peak memory and time of surveying a sharded bf16 checkpoint of 2.2 GB."""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeship.tools.bench.rig import (
    CannotMeasure,
    Goal,
    describe_run,
    positive,
    report,
    run_script,
    table,
)

MEMORY_GOAL_MB: Final = 300
_HIDDEN: Final = 2048
_FFN: Final = 5632
_KEYS_AND_VALUES: Final = 256
_VOCABULARY: Final = 32_000
"""Widths of TinyLlama-1.1B (its config.json), which with 22 layers has 1.1e9 weights."""
_ZEROED: Final = 256
"""Output channels of each gate_proj that are made zero, as structured pruning leaves them."""
_BLOCK_ROWS: Final = 1024
_SURVEY: Final = """\
import json, resource, sys, time
from pathlib import Path
from edgeship.source.survey import survey_checkpoint
start = time.perf_counter()
survey = survey_checkpoint(Path(sys.argv[1]))
wall = time.perf_counter() - start
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
usage = resource.getrusage(resource.RUSAGE_SELF)
json.dump({
    "peak_mb": peak * 1024 / 1e6, "wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime,
    "parameters": survey.parameters, "size_bytes": survey.size_bytes,
    "zero_channels": sum(item.zero_outputs or 0 for item in survey.tensors),
    "modules": sorted({"torch", "safetensors"} & set(sys.modules)),
}, sys.stdout)
"""
"""VmHWM is asked of the process itself: ru_maxrss would hold the parent's from before exec."""


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """What one survey took, in a process of its own; CPU seconds hold the imports too."""

    peak_mb: float
    wall_s: float
    cpu_s: float
    parameters: int
    size_bytes: int
    zero_channels: int
    modules: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(("numpy",))
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        write_checkpoint(Path(name), layers=arguments.layers, shards=arguments.shards)
        first, second = (survey_in_process(Path(name)) for _ in range(2))
    expected = arguments.layers * _ZEROED
    if second.zero_channels != expected:
        message = f"{second.zero_channels} zero channels were found, {expected} were written"
        raise CannotMeasure(message)
    rows = [("survey", "peak MB", "wall s", "CPU s")]
    rows += [
        (label, f"{item.peak_mb:.0f}", f"{item.wall_s:.2f}", f"{item.cpu_s:.2f}")
        for label, item in (("first", first), ("second", second))
    ]
    size = f"{second.parameters:,} parameters, {second.size_bytes / 1e9:.2f} GB in bf16"
    lines = [f"{size}, {arguments.shards} shards; imported: {second.modules or 'no torch'}"]
    worst = max(first.peak_mb, second.peak_mb)
    text = f"peak memory is {worst:.0f} MB (goal <= {MEMORY_GOAL_MB} MB)"
    goal = Goal(text=text, is_met=worst <= MEMORY_GOAL_MB)
    value = {"surveys": [asdict(first), asdict(second)]}
    report(run, [*lines, *table(rows)], [goal], value, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--layers", type=positive, default=22, metavar="N")
    parser.add_argument("--shards", type=positive, default=4, metavar="N")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args(argv)


def survey_in_process(directory: Path) -> Surveyed:
    """Survey in a fresh interpreter.

    Raises:
        CannotMeasure: The survey failed.
    """
    command = [sys.executable, "-P", "-c", _SURVEY, str(directory)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        message = f"the survey exits {done.returncode}: see above"
        raise CannotMeasure(message)
    return Surveyed(**json.loads(done.stdout))


def write_checkpoint(directory: Path, *, layers: int, shards: int) -> None:
    """Write a Llama-like checkpoint of random weights, a block of rows at a time."""
    generator = np.random.default_rng(0)
    shapes = dict(llama_shapes(layers))
    names = list(shapes)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        mine = names[number::shards]
        weight_map |= dict.fromkeys(mine, file)
        write_shard(directory / file, {name: shapes[name] for name in mine}, generator)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _HIDDEN,
        "intermediate_size": _FFN,
        "num_hidden_layers": layers,
        "vocab_size": _VOCABULARY,
    }
    (directory / "config.json").write_text(json.dumps(config))


def llama_shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors, as transformers writes them."""
    yield "model.embed_tokens.weight", (_VOCABULARY, _HIDDEN)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (_HIDDEN,)
        yield f"{prefix}.mlp.gate_proj.weight", (_FFN, _HIDDEN)
        yield f"{prefix}.mlp.up_proj.weight", (_FFN, _HIDDEN)
        yield f"{prefix}.mlp.down_proj.weight", (_HIDDEN, _FFN)
        for name in ("q", "o"):
            yield f"{prefix}.self_attn.{name}_proj.weight", (_HIDDEN, _HIDDEN)
        for name in ("k", "v"):
            yield f"{prefix}.self_attn.{name}_proj.weight", (_KEYS_AND_VALUES, _HIDDEN)
    yield "model.norm.weight", (_HIDDEN,)
    yield "lm_head.weight", (_VOCABULARY, _HIDDEN)


def write_shard(
    file: Path, shapes: dict[str, tuple[int, ...]], generator: np.random.Generator
) -> None:
    """One safetensors file: bf16, cut from float32 without rounding."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header).encode()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(raw)) + raw)
        for name, shape in shapes.items():
            for start in range(0, shape[0], _BLOCK_ROWS):
                rows = min(_BLOCK_ROWS, shape[0] - start)
                block = generator.standard_normal((rows, *shape[1:]), np.float32)
                if name.endswith("gate_proj.weight") and start == 0:
                    block[:_ZEROED] = 0
                out.write((block.view("<u4") >> 16).astype("<u2").tobytes())


if __name__ == "__main__":
    sys.exit(run_script(main))
