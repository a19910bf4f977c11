"""What rewrites do to MiniLM: integer ONNX, TFLite and TensorRT graphs, on held-out texts."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgeship.artifact import read_artifact
from edgeship.runtimes.delegation import examine_delegation
from edgeship.runtimes.protocol import TFLITE_RUNTIME_VARIABLE
from edgeship.tools.bench.rig import (
    REPOSITORY,
    CannotMeasure,
    Goal,
    build_project,
    describe_run,
    make_parser,
    report,
    run_script,
    table,
)
from edgeship.tools.bench.tflite_net import content_of, model_file
from edgeship.tools.bench.transformer import make_project
from edgeship.vocabulary import Metric

_PACKAGES: Final = ("onnxruntime", "litert-torch", "ai-edge-litert", "torch", "transformers")
_TFLITE_PYTHON: Final = REPOSITORY / ".cache" / "tflite" / "bin" / "python"
_TARGETS: Final = {
    "onnx": ("raspberry-pi-4", "int8"),
    "tensorrt": ("jetson-orin-nano", "kit"),
    "tflite": ("raspberry-pi-4", "int8"),
}
_CHOICES: Final = {
    "onnx": ("off", "smoothquant", "rotate", "auto"),
    "tensorrt": ("off", "smoothquant", "rotate", "auto"),
    "tflite": ("off", "rotate", "auto"),
}
_GOALS: Final = (
    ("onnx", "onnxruntime", 0.997, None, None),
    ("tensorrt", "onnxruntime", 0.996, None, None),
    ("tflite", "ai-edge-litert", 0.995, 0.99, 1.8),
)
"""Format, runtime, least mean cosine, least cosine, times as fast as float."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One integer file in one runtime of this host.

    Attributes:
        format: Of the file.
        equalize: What the project asked for.
        kept: What it got.
        runtime: In which it was measured.
        cosine_mean: With the float model, over the held-out texts.
        cosine_min: The least of them.
        float_ratio: CPU time over that of the model's own float file; None where not measured.
        content: TFLite: what should not be in it, and in how many parts XNNPACK takes it.
    """

    format: str
    equalize: str
    kept: tuple[str, ...]
    runtime: str
    cosine_mean: float
    cosine_min: float
    float_ratio: float | None
    content: str


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    run = describe_run(_PACKAGES)
    if _TFLITE_PYTHON.exists():
        os.environ.setdefault(TFLITE_RUNTIME_VARIABLE, str(_TFLITE_PYTHON))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        project = make_project(Path(name), arguments.shared)
        model = project.read_text().partition("[targets.")[0]
        for format_ in arguments.formats:
            for choice in _CHOICES[format_]:
                project.write_text(model + section(format_, choice))
                rows += measure(format_, choice, project)
                print("  ".join(row_cells(rows[-1])), file=sys.stderr, flush=True)
    report(
        run,
        row_lines(rows),
        goals(rows),
        {"rows": [asdict(row) for row in rows]},
        as_json=arguments.json,
    )
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--formats", nargs="+", choices=list(_TARGETS), default=list(_TARGETS), help="only these"
    )
    return parser.parse_args(argv)


def section(format_: str, choice: str) -> str:
    target, precision = _TARGETS[format_]
    value = f'"{choice}"' if choice in {"off", "auto"} else f'["{choice}"]'
    return (
        f'[targets.{target}]\nformats = ["{format_}"]\nbudget.accuracy_drop = "off"\n'
        f'[targets.{target}.{format_}]\nprecisions = ["{precision}"]\nequalize = {value}\n'
    )


def measure(format_: str, choice: str, project: Path) -> list[Row]:
    """A row for each runtime in which the file was measured."""
    (built,) = build_project(project)
    artifact = read_artifact(Path(built["path"]))
    recipe: Any = artifact.manifest.source["recipe"]
    kept = tuple(str(step["equalize"]) for step in recipe if "equalize" in step)
    content = tflite_content(model_file(artifact)) if format_ == "tflite" else ""
    rows = [
        Row(
            format=format_,
            equalize=choice,
            kept=kept,
            runtime=f"{evidence.where['runtime']} {evidence.where['version']}",
            cosine_mean=evidence.metrics[Metric.COSINE_MEAN],
            cosine_min=evidence.metrics[Metric.COSINE_MIN],
            float_ratio=None if evidence.speed is None else evidence.speed.float_ratio,
            content=content,
        )
        for evidence in artifact.manifest.evidence
        if Metric.COSINE_MEAN in evidence.metrics
    ]
    if not rows:
        message = f"{format_} with {choice} was measured nowhere"
        raise CannotMeasure(message)
    return rows


def tflite_content(file: Path) -> str:
    found = content_of(file, file)
    delegation = examine_delegation(file)
    outside = ", ".join(f"{count} {name}" for name, count in delegation.outside.items())
    return (
        f"{found.bytes / 1e6:.1f} MB, {found.float_tensors} float tensors, {found.conversions} "
        f"QUANTIZE, {delegation.partitions} parts of XNNPACK, outside: {outside or 'nothing'}"
    )


def row_cells(row: Row) -> list[str]:
    speed = "" if row.float_ratio is None else f"{1 / row.float_ratio:.2f}x"
    cosine = f"{row.cosine_mean:.4f} ({row.cosine_min:.4f})"
    return [f"{row.format} {row.equalize}", ", ".join(row.kept), row.runtime, cosine, speed]


def row_lines(rows: Sequence[Row]) -> list[str]:
    head = ["file", "kept", "runtime", "cosine mean (min)", "speed of float"]
    contents = {f"{row.format} {row.equalize}": row.content for row in rows if row.content}
    return [
        *table([head, *map(row_cells, rows)]),
        "",
        *(f"{name}: {content}" for name, content in contents.items()),
    ]


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Of the best row of each format, in the first runtime that is named."""
    found = []
    for format_, runtime, mean, least, speed in _GOALS:
        mine = [row for row in rows if row.format == format_ and row.runtime.startswith(runtime)]
        if not mine:
            continue
        best = max(mine, key=lambda row: row.cosine_mean)
        name = f"{format_} with {', '.join(best.kept) or 'nothing'}"
        text = f"{name}: mean cosine {best.cosine_mean:.4f}, at least {mean}"
        found.append(Goal(text=text, is_met=best.cosine_mean >= mean))
        if least is not None:
            text = f"{name}: least cosine {best.cosine_min:.4f}, at least {least}"
            found.append(Goal(text=text, is_met=best.cosine_min >= least))
        if speed is not None and best.float_ratio is not None:
            text = f"{name}: {1 / best.float_ratio:.2f} times as fast as float, at least {speed}"
            found.append(Goal(text=text, is_met=1 / best.float_ratio >= speed))
    return found


if __name__ == "__main__":
    sys.exit(run_script(main))
