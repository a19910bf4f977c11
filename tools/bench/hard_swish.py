"""Hard-swish written out: a MobileNetV3 as an integer .tflite, with the rewrite and without."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch

from edgeship.evaluate.delegates import DelegateCheck, check_delegates
from edgeship.evidence import Evidence
from edgeship.tools.bench import swish
from edgeship.tools.bench.rig import (
    REPOSITORY,
    CannotMeasure,
    Goal,
    describe_run,
    make_parser,
    positive,
    report,
    run_script,
    table,
)
from edgeship.tools.bench.tflite_net import RUNTIME, Net, measure
from edgeship.tools.bench.tiny_training import TinyNet, images_of, link_images, load_images, train
from edgeship.vocabulary import Metric

TARGET: Final = "raspberry-pi-4"
SPEED_GOAL: Final = 1.3
DROP_GOAL: Final = 0.01
"""Of top-1: the gate that a target without a budget of its own has."""
SIZE: Final = 64
PASSES: Final[Mapping[str, str]] = {"as it is": '"off"', "written out": '["hard-swish"]'}
_PACKAGES: Final = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch", "numpy")
_OLD: Final = "tflite_runtime"
_OLD_PYTHON: Final = REPOSITORY / ".cache" / "tflite" / "bin" / "python"
_PROJECT: Final = """\
[model]
name = "swish"
factory = "swish.py:build"
weights = "swish.pth"
[model.inputs.image]
shape = [1, 3, {size}, {size}]
[model.inputs.image.preprocess]
size = [{size}, {size}]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[calibration]
data = "calib"
samples = 256
[evaluation]
data = "test"
metric = "top1"
[targets.{target}]
formats = ["tflite"]
[targets.{target}.tflite]
equalize = {equalize}
"""
_OLD_TIMING: Final = """
import json, sys, time
import numpy as np
from tflite_runtime.interpreter import Interpreter
runs, times = [], {}
for path in sys.argv[1:]:
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    for item in interpreter.get_input_details():
        values = np.random.default_rng(0).integers(-128, 128, item["shape"])
        interpreter.set_tensor(item["index"], values.astype(item["dtype"]))
    interpreter.invoke()
    runs.append((path, interpreter))
for _ in range(21):
    for path, interpreter in runs:
        start = time.process_time_ns()
        for _ in range(5):
            interpreter.invoke()
        times.setdefault(path, []).append((time.process_time_ns() - start) / 5e6)
print(json.dumps({path: float(np.median(found)) for path, found in times.items()}))
"""
"""Run by the environment that has tflite_runtime: CPU time of a run in ms, of files in turns."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One integer file.

    Attributes:
        net: What the build and the comparison with its float file gave.
        check: Of its delegates.
        file: The model.
    """

    net: Net
    check: DelegateCheck
    file: Path


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        trained = Path(name) / "trained"
        make_data(trained, arguments.shared, arguments.epochs)
        variants = {}
        for title, equalize in PASSES.items():
            directory = Path(name) / title.replace(" ", "-")
            shutil.copytree(trained, directory, symlinks=True)
            variants[title] = build_variant(title, directory, equalize)
        old_ms = time_old([variant.file for variant in variants.values()])
    times = dict(zip(variants, old_ms, strict=False))
    value = {
        title: {
            "bytes": variant.net.content.bytes,
            "line": variant.check.line,
            "partitions": variant.check.delegation.partitions,
            "speed": asdict(variant.net.speed),
            "evidence": {key: item.to_json() for key, item in variant.net.evidence.items()},
            "tflite_runtime_ms": times.get(title),
        }
        for title, variant in variants.items()
    }
    report(run, lines(variants, times), goals(variants), value, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--epochs", type=positive, default=12, metavar="N", help="how long the net is trained"
    )
    return parser.parse_args(argv)


def make_data(directory: Path, shared: Path, epochs: int) -> None:
    """Train the net on the calibration images and half of the test images, as `tiny_training`.

    Raises:
        CannotMeasure: The data is not there.
    """
    calib, test = shared / "cifar10" / "calib", shared / "cifar10" / "test"
    for path in (calib, test):
        if not path.is_dir():
            message = f"{path} is missing: name the folder that holds the data with --shared DIR"
            raise CannotMeasure(message)
    folders = TinyNet(name="swish", size=SIZE, epochs=epochs, is_two_class=False)
    link_images(folders, [*images_of(calib), *images_of(test, 0)], directory / "train")
    link_images(folders, images_of(calib), directory / "calib")
    link_images(folders, images_of(test, 1), directory / "test")
    shutil.copyfile(swish.__file__, directory / "swish.py")
    torch.manual_seed(0)
    torch.set_num_threads(1)  # two on two busy cores took thirty times as long (measured)
    module, weights = swish.build(), directory / "swish.pth"
    torch.save(module.state_dict(), weights)  # a project needs some to be read
    project = write_project(directory, '"off"')
    train(module, *load_images(project, directory / "train"), epochs=epochs)
    torch.save(module.state_dict(), weights)


def write_project(directory: Path, equalize: str) -> Path:
    file = directory / "edgeship.toml"
    file.write_text(_PROJECT.format(size=SIZE, target=TARGET, equalize=equalize))
    return file


def build_variant(title: str, directory: Path, equalize: str) -> Variant:
    net = measure(title, write_project(directory, equalize))
    file = directory / "build" / TARGET / "tflite-int8" / "model.tflite"
    return Variant(net=net, check=check_delegates(file), file=file)


def time_old(files: Sequence[Path]) -> list[float]:
    """CPU ms of one run in tflite_runtime; none where it is not installed."""
    if not _OLD_PYTHON.exists():
        return []
    command = [str(_OLD_PYTHON), "-c", _OLD_TIMING, *map(str, files)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    times = json.loads(done.stdout)
    return [times[str(file)] for file in files]


def lines(variants: Mapping[str, Variant], old_ms: Mapping[str, float]) -> list[str]:
    rows = [("hard-swish", "bytes", "delegates", "int8 ms", "fp32 ms", "int8 / fp32 CPU", "ms old")]
    accuracy = [("hard-swish", "runtime", "top-1", "float top-1", "agreement", "samples")]
    for title, variant in variants.items():
        speed, (low, high) = variant.net.speed, variant.net.speed.spread
        times = f"{speed.one_ms:.3f}", f"{speed.other_ms:.3f}"
        share = f"{speed.ratio:.3f} ({low:.3f}..{high:.3f})"
        parts = str(variant.check.delegation.partitions)
        old = f"{old_ms[title]:.2f}" if title in old_ms else "absent"
        rows.append((title, str(variant.net.content.bytes), parts, *times, share, old))
        for runtime, evidence in variant.net.evidence.items():
            accuracy.append((title, runtime, *accuracy_cells(evidence)))
    said = [f"{title}: {variant.check.line}" for title, variant in variants.items()]
    return [*table(rows), "", *said, f"ms old: {_OLD}, CPU time", "", *table(accuracy)]


def accuracy_cells(evidence: Evidence) -> tuple[str, str, str, str]:
    keys = (Metric.TOP1, Metric.REFERENCE_TOP1, Metric.AGREEMENT)
    top1, reference, agreement = (f"{100 * evidence.metrics[key]:.2f} %" for key in keys)
    return top1, reference, agreement, str(evidence.samples)


def goals(variants: Mapping[str, Variant]) -> list[Goal]:
    found = variants["written out"]
    parts, speed = found.check.delegation.partitions, 1 / found.net.speed.ratio
    made = [
        Goal(text=f"{parts} delegates (goal 1)", is_met=parts == 1),
        Goal(
            text=f"int8 is {speed:.2f}x its float file in {RUNTIME} (goal >= {SPEED_GOAL}x)",
            is_met=speed >= SPEED_GOAL,
        ),
    ]
    for runtime, evidence in found.net.evidence.items():
        change = evidence.metrics[Metric.TOP1] - evidence.metrics[Metric.REFERENCE_TOP1]
        text = f"top-1 in {runtime} {100 * change:+.2f} pt (goal >= {-100 * DROP_GOAL:.1f} pt)"
        made.append(Goal(text=text, is_met=change >= -DROP_GOAL - 1e-9))
    return made


if __name__ == "__main__":
    sys.exit(run_script(main))
