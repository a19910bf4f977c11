"""Time, memory and disk of one pass to GGUF, against llama.cpp's converter and llama-quantize.

Not called gguf.py: a script's folder comes first on the path, where it would hide the package.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edgeship.tools.bench.rig import (
    REPOSITORY,
    CannotMeasure,
    Goal,
    describe_run,
    positive,
    ratio,
    report,
    run_script,
    table,
)

MEMORY_GOAL_MB: Final = 256
CPU_GOALS: Final = {("q4_0", False): 3.5, ("q4_k_m", True): 3.0}
"""By file type, and whether compiled kernels are used: how many times less CPU than two steps."""
_TOOLS: Final = REPOSITORY / ".cache" / "llama.cpp"
_MODELS: Final = {
    "1.1B": {"hidden": 2048, "ffn": 5632, "layers": 22, "heads": 32, "kv_heads": 4},
    "135M": {"hidden": 576, "ffn": 1536, "layers": 30, "heads": 9, "kv_heads": 3},
}
"""Widths of TinyLlama-1.1B and SmolLM-135M (their config.json)."""
_VOCABULARIES: Final = {"1.1B": 32_000, "135M": 49_152}
_MAKE: Final = """\
import json, sys
from pathlib import Path
from runpy import run_path
made = run_path(sys.argv[1])
shape = made["Shape"](**json.loads(sys.argv[2]))
made["write_llama"](Path(sys.argv[3]), shape, shards=4)
"""
_OURS: Final = """\
import json, resource, sys
from collections import Counter
from pathlib import Path
from edgeship.exporters.gguf.architectures import read_blueprint
from edgeship.exporters.gguf.blueprint import closing_metadata
from edgeship.exporters.gguf.fast import fast_kernels
from edgeship.exporters.gguf.file_types import file_type_named
from edgeship.exporters.gguf.library import Ggml
from edgeship.exporters.gguf.mixture import assign_kinds
from edgeship.exporters.gguf.stream import Contents, write_gguf
from edgeship.exporters.gguf.vocabulary import read_vocabulary
from edgeship.source.stored_checkpoint import open_checkpoint
directory, path, file_type, threads, is_fast = sys.argv[1:]
blueprint = read_blueprint(Path(directory))
vocabulary = read_vocabulary(Path(directory), blueprint.architecture, blueprint.facts.vocabulary)
kinds = assign_kinds(blueprint.tensors, blueprint.facts, file_type, False,
                     architecture=blueprint.architecture).kinds
weights = Counter()
for plan in blueprint.tensors:
    weights[kinds[plan.name]] += plan.elements
kernels = fast_kernels(weights).kernels if is_fast == "True" else {}
closing = closing_metadata(file_type_named(file_type).number)
contents = Contents(metadata=blueprint.metadata + vocabulary.metadata + closing,
                    tensors=blueprint.tensors, kinds=kinds)
with open_checkpoint(Path(directory)) as opened:
    write_gguf(opened.source, contents, Path(path), threads=int(threads), ggml=Ggml(kernels))
"""
_PEAK: Final = """
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
print(peak * 1024 / 1e6)
"""
"""Asked of the process itself: ru_maxrss would hold the parent's from before exec."""
_POLL_S: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one process took, imports included; the disk is what it wrote, at its fullest."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    disk_mb: float

    def then(self, other: Taken) -> Taken:
        """This process and another after it, which reads what this one wrote."""
        return Taken(
            cpu_s=self.cpu_s + other.cpu_s,
            wall_s=self.wall_s + other.wall_s,
            peak_mb=max(self.peak_mb, other.peak_mb),
            disk_mb=self.disk_mb + other.disk_mb,
        )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if not (arguments.tools / "bin" / "llama-quantize").exists():
        message = f"{arguments.tools} has no llama-quantize: run make fixtures, or use --tools"
        raise CannotMeasure(message)
    run = describe_run(("gguf", "llama-cpp-python", "numba", "numpy"))
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-", dir=arguments.scratch) as name:
        results = measure_all(Path(name), arguments)
    goals = list(goals_of(results))
    rows: list[tuple[str, ...]] = [("", "CPU s", "wall s", "peak MB", "disk MB", "CPU ratio")]
    for label, taken in results.items():
        peer = results[f"{label.split(',')[0]}, two steps"]
        factor = f"{ratio(peer.cpu_s, taken.cpu_s):.2f}"
        numbers = (taken.cpu_s, taken.wall_s, taken.peak_mb, taken.disk_mb)
        rows.append((label, *(f"{number:.1f}" for number in numbers), factor))
    value = {label: asdict(taken) for label, taken in results.items()}
    lines = [f"{arguments.model} random Llama, {arguments.threads} threads", *table(rows)]
    report(run, lines, goals, {"model": arguments.model, "taken": value}, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", choices=list(_MODELS), default="1.1B")
    parser.add_argument("--types", nargs="+", default=["q4_0", "q4_k_m"], metavar="TYPE")
    parser.add_argument("--threads", type=positive, default=2, metavar="N")
    parser.add_argument("--tools", type=Path, default=_TOOLS, metavar="DIR")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where 6 GB are free")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args(argv)


def measure_all(scratch: Path, arguments: argparse.Namespace) -> dict[str, Taken]:
    """By `type, way`; each of our files is compared with theirs.

    Raises:
        CannotMeasure: A step failed, or a file differs.
    """
    hf, peer, ours = (scratch / name for name in ("hf", "peer", "ours"))
    peer.mkdir()
    ours.mkdir()
    shape = {**_MODELS[arguments.model], "vocabulary": _VOCABULARIES[arguments.model]}
    maker = REPOSITORY / "tests" / "exporters" / "gguf" / "checkpoints.py"
    measured([sys.executable, "-P", "-c", _MAKE, maker, json.dumps(shape), hf], hf)
    whole, theirs, path = peer / "whole.gguf", peer / "theirs.gguf", ours / "ours.gguf"
    script = arguments.tools / "convert_hf_to_gguf.py"
    options = ("--outtype", "bf16", "--outfile")
    conversion = measured([sys.executable, script, hf, *options, whole], peer)
    results: dict[str, Taken] = {}
    threads = str(arguments.threads)
    for kind in arguments.types:
        quantize = arguments.tools / "bin" / "llama-quantize"
        quantization = measured([quantize, whole, theirs, kind, threads], peer)
        results[f"{kind}, two steps"] = conversion.then(quantization)
        for is_fast in (False, True):
            command = [sys.executable, "-P", "-c", _OURS + _PEAK]
            taken = measured([*command, hf, path, kind, threads, str(is_fast)], ours)
            way = "one pass with [fast]" if is_fast else "one pass"
            results[f"{kind}, {way}"] = taken
            if not filecmp.cmp(theirs, path, shallow=False):
                message = f"{kind}, {way}: the file is not the one of llama-quantize"
                raise CannotMeasure(message)
            path.unlink()
        theirs.unlink()
    return results


def measured(command: Sequence[str | Path], place: Path) -> Taken:
    """Run a command; what it took, and how much it added to `place` at its fullest.

    Raises:
        CannotMeasure: It failed.
    """
    before, fullest = _disk_bytes(place), 0
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told)
        is_over = threading.Event()

        def watch() -> None:
            nonlocal fullest
            while not is_over.wait(_POLL_S):
                fullest = max(fullest, _disk_bytes(place))

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        is_over.set()
        watcher.join()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            told.seek(0)
            sys.stderr.write(told.read().decode(errors="replace")[-2000:])
            message = f"{command[0]} exits {child.returncode}: see above"
            raise CannotMeasure(message)
    last = output.decode(errors="replace").split()[-1:]
    own_peak = float(last[0]) if "-c" in command and last else None
    return Taken(
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=time.perf_counter() - start,
        peak_mb=own_peak or usage.ru_maxrss * 1024 / 1e6,
        disk_mb=(max(fullest, _disk_bytes(place)) - before) / 1e6,
    )


def _disk_bytes(place: Path) -> int:
    """What the files of a directory take on the disk; they may go while they are counted."""
    total = 0
    for path in place.glob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def goals_of(results: dict[str, Taken]) -> list[Goal]:
    goals = []
    for label, taken in results.items():
        kind, way = label.split(", ")
        if way == "two steps":
            continue
        is_fast = "fast" in way
        text = f"{label}: peak memory is {taken.peak_mb:.0f} MB (goal <= {MEMORY_GOAL_MB} MB)"
        goals.append(Goal(text=text, is_met=taken.peak_mb <= MEMORY_GOAL_MB))
        wanted = CPU_GOALS.get((kind, is_fast))
        if wanted is not None:
            factor = ratio(results[f"{kind}, two steps"].cpu_s, taken.cpu_s)
            text = f"{label}: {factor:.2f} times less CPU than two steps (goal >= {wanted})"
            goals.append(Goal(text=text, is_met=factor >= wanted))
    return goals


if __name__ == "__main__":
    sys.exit(run_script(main))
