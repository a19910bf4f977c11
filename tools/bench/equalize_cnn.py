"""Cross-layer equalization of a depthwise net whose channels were made unequal: top-1 by format."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from edgeship.artifact import Artifact, read_artifact
from edgeship.tools.bench.rig import (
    Goal,
    build_project,
    describe_run,
    make_parser,
    positive,
    report,
    run_script,
    table,
)
from edgeship.tools.bench.tiny import MobileNet, Pair, build_mobilenet
from edgeship.tools.bench.tiny_training import NETS, make_tiny_project
from edgeship.vocabulary import Metric

NET: Final = next(net for net in NETS if net.name == "mobilenet")
TARGETS: Final[Mapping[str, str]] = {
    "onnx": "raspberry-pi-4",
    "tflite": "raspberry-pi-4",
    "tensorrt": "jetson-orin-nano",
}
DROP: Final = 0.010
"""What an equalized net may lose: one point of top-1."""
_ROUNDING: Final = 1e-9
_PACKAGES: Final = ("torch", "onnxruntime", "litert-torch", "ai-edge-quantizer", "numpy")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Top-1 of one integer file, as fractions, and what was done to its float model."""

    net: str
    format: str
    equalize: str
    top1: float
    float_top1: float
    agreement: float
    notes: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--bits", type=positive, default=3, metavar="N", help="imbalance of 2^+-N (default: 3)"
    )
    arguments = parser.parse_args(argv)
    run = describe_run(_PACKAGES)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        even, uneven = Path(name, "even"), Path(name, "uneven")
        even.mkdir()
        make_tiny_project(NET, even, arguments.shared)
        shutil.copytree(even, uneven, symlinks=True)
        unbalance_weights(uneven / f"{NET.name}.pth", arguments.bits)
        results = [*measure(even, "as trained"), *measure(uneven, f"2^+-{arguments.bits}")]
    goals = [goal_of(result) for result in results if result.equalize != "off"]
    lines = [*result_lines(results), "", *(line for one in results for line in note_lines(one))]
    value = {"results": [asdict(result) for result in results]}
    report(run, lines, goals, value, as_json=arguments.json)
    return 0


def unbalance_weights(file: Path, bits: int) -> None:
    """Scale each channel between two layers by 2^-bits..2^bits, and leave what the net computes.

    A BatchNorm multiplies what it gives, the layer behind it divides what it reads: nothing but a
    ReLU, and at the end a mean, lies between.
    """
    module = build_mobilenet()
    module.load_state_dict(torch.load(file, weights_only=True))
    random = np.random.default_rng(0)
    for norm, reader in joints(module):
        exponents = random.uniform(-bits, bits, norm.num_features)
        scales = torch.from_numpy(2.0**exponents).to(norm.weight.dtype)
        norm.weight.data *= scales
        norm.bias.data *= scales
        reader.weight.data /= as_inputs(scales, reader)
    torch.save(module.state_dict(), file)


def joints(module: MobileNet) -> Iterator[tuple[nn.BatchNorm2d, nn.Conv2d | nn.Linear]]:
    """Each BatchNorm, and the layer that reads what it gives."""
    before = module.bn
    for pair in module.pairs:
        assert isinstance(pair, Pair)
        yield before, pair.depthwise
        yield pair.bn1, pair.pointwise
        before = pair.bn2
    yield before, module.linear


def as_inputs(scales: Tensor, reader: nn.Conv2d | nn.Linear) -> Tensor:
    """In a shape that broadcasts to the weight: a depthwise one has a channel in each row."""
    is_depthwise = isinstance(reader, nn.Conv2d) and reader.groups > 1
    axis = 0 if is_depthwise else 1
    shape = [1] * reader.weight.dim()
    shape[axis] = -1
    return scales.reshape(shape)


def measure(directory: Path, net: str) -> Iterator[Result]:
    """Build the net in each format, without equalization, with it, and as "auto" decides."""
    file = directory / "edgeship.toml"
    head, _, _ = file.read_text().partition("[targets.")
    for equalize in ('"off"', '["cross-layer"]', '"auto"'):
        file.write_text(head + "".join(sections(equalize)))
        for artifact in build_project(file):
            if artifact["precision"] in {"int8", "kit"}:
                yield result_of(net, equalize.strip('[]"'), read_artifact(Path(artifact["path"])))


def sections(equalize: str) -> Iterator[str]:
    """Of a project file, for each target and format."""
    for target in dict.fromkeys(TARGETS.values()):
        formats = [name for name, of in TARGETS.items() if of == target]
        listed = ", ".join(f'"{name}"' for name in formats)
        yield f"[targets.{target}]\nformats = [{listed}]\n"
        for name in formats:
            yield f"[targets.{target}.{name}]\nequalize = {equalize}\n"


def result_of(net: str, equalize: str, artifact: Artifact) -> Result:
    manifest = artifact.manifest
    (evidence, *_) = (item for item in manifest.evidence if Metric.TOP1 in item.metrics)
    return Result(
        net=net,
        format=str(manifest.format),
        equalize=equalize,
        top1=evidence.metrics[Metric.TOP1],
        float_top1=evidence.metrics[Metric.REFERENCE_TOP1],
        agreement=evidence.metrics[Metric.AGREEMENT],
        notes=tuple(note for note in manifest.notes if note.startswith("equalize")),
    )


def goal_of(result: Result) -> Goal:
    change = result.top1 - result.float_top1
    return Goal(
        text=(
            f"{result.net}, {result.format}, equalize {result.equalize}: top-1 "
            f"{100 * change:+.2f} pt (goal >= {-100 * DROP:.1f} pt)"
        ),
        is_met=change >= -DROP - _ROUNDING,
    )


def result_lines(results: Sequence[Result]) -> list[str]:
    rows = [("net", "format", "equalize", "top-1", "float top-1", "agreement")]
    for item in results:
        values = item.top1, item.float_top1, item.agreement
        top1, float_top1, agreement = (f"{100 * value:.2f} %" for value in values)
        rows.append((item.net, item.format, item.equalize, top1, float_top1, agreement))
    return table(rows)


def note_lines(result: Result) -> list[str]:
    return [f"{result.net}, {result.format}, {result.equalize}: {note}" for note in result.notes]


if __name__ == "__main__":
    sys.exit(run_script(main))
