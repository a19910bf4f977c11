"""Golden pack: inputs, expected outputs and tolerances that travel with an artifact."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeship.calibration.samples import LoadedSample
from edgeship.contract import Contract, TensorSpec
from edgeship.errors import ExportFailed, Problem
from edgeship.evaluate.outputs import Run
from edgeship.runtimes.adapter import dequantize, encode_inputs
from edgeship.vocabulary import ChannelOrder, Layout

DIRECTORY: Final = "golden"
PACK_NAME: Final = "golden.json"
CASES: Final = 4
SCHEMA: Final = 1
_FLOAT_TOLERANCE: Final = 1e-4
"""Of the largest magnitude: what the exporter allows itself, and 100 times what x86 and ARM differ
by in ONNX Runtime's float kernels (1e-6, measured)."""
_STEPS: Final = 5
"""Of a quantized output: what LiteRT 2.3 with XNNPACK and TFLite Runtime 2.14, or LiteRT's own
kernels, differ by at most on 200 images (ResNet-20 int8, measured; 3 in 95 % of the images)."""
_ROUNDING: Final = 1e-6
"""Of a step: a difference of whole steps is not exact in float."""


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """One sample through the artifact on this host and through the float model.

    Attributes:
        name: Of the sample.
        sample: As the float model takes it.
        inputs: As the artifact takes it: in its layout, quantized where it is.
        artifact: Its outputs as it gives them.
        reference: The float model's outputs, in the artifact's layout.
    """

    name: str
    sample: LoadedSample
    inputs: Mapping[str, np.ndarray]
    artifact: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray]


def run_case(
    name: str,
    sample: LoadedSample,
    *,
    model_inputs: Sequence[TensorSpec],
    contract: Contract,
    artifact: Run,
    reference: Run,
) -> GoldenCase:
    """Run one sample through both: `artifact` takes and gives what its contract says."""
    inputs = encode_inputs(sample.inputs, model_inputs, contract)
    expected = reference(sample.inputs)
    return GoldenCase(
        name=name,
        sample=sample,
        inputs=inputs,
        artifact=artifact(inputs),
        reference={spec.name: _laid_out(expected[spec.name], spec) for spec in contract.outputs},
    )


def write_golden_pack(
    directory: Path,
    cases: Sequence[GoldenCase],
    contract: Contract,
    *,
    output_steps: Mapping[str, float],
) -> list[str]:
    """Write `golden/golden.json` and its tensors below `directory`; the names that were written.

    Tolerances of `close` are absolute, of `lsb` in steps of the stored integers. Against the
    artifact on the host: five steps of stored integers; one step of what was rounded on the way to
    a float output; else 1e-4 of its largest magnitude; or what the artifact itself differs from
    the float model by in these cases, if that is more: where the inside is quantized, two correct
    runtimes may round to neighbours, and the outputs then move by that much (MiniLM in ONNX: by
    4 % with and without the runtime's fusions, measured). Against the float model, whose outputs
    are real numbers: that, plus the difference.

    Raises:
        ExportFailed: An output is NaN or infinite: nothing can be held against it.
    """
    for case in cases:
        _require_finite(case, contract)
    pack = GoldenFiles(directory)
    entries = []
    for index, case in enumerate(cases):
        entry: dict[str, object] = {"id": case.name}
        if case.sample.pixels is not None:
            order = contract.inputs[0].preprocess
            is_grey = order is not None and order.order is ChannelOrder.GRAY
            file = pack.add(f"case{index}.raw", case.sample.pixels)
            entry["raw"] = {
                "file": file,
                "dtype": "uint8",
                "layout": "HWC",
                "order": "GRAY" if is_grey else "RGB",
            }
        entry["inputs"] = [
            pack.describe(f"case{index}.{position}", spec.name, case.inputs[spec.name])
            for position, spec in enumerate(contract.inputs)
        ]
        entry["expect"] = [
            expected
            for position, spec in enumerate(contract.outputs)
            for expected in _expectations(
                pack, f"case{index}.{position}", spec, case, _limits(spec, cases, output_steps)
            )
        ]
        entries.append(entry)
    text = json.dumps({"schema": SCHEMA, "cases": entries}, indent=1, allow_nan=False)
    (directory / DIRECTORY / PACK_NAME).write_text(text + "\n", encoding="utf-8")
    return [f"{DIRECTORY}/{PACK_NAME}", *(f"{DIRECTORY}/{name}" for name in pack.names)]


def _require_finite(case: GoldenCase, contract: Contract) -> None:
    for side, outputs in (("artifact", case.artifact), ("float model", case.reference)):
        for spec in contract.outputs:
            values = outputs[spec.name]
            bad = values.size - int(np.isfinite(values).sum())
            if bad:
                problem = Problem(
                    where=f"golden case {case.name}",
                    what=f"output {spec.name!r} of the {side} is NaN or infinite",
                    expected="finite numbers",
                    found=f"{bad} of {values.size} values",
                    remedy="keep more of the model in float, or mend its weights",
                )
                raise ExportFailed(problem)


class GoldenFiles:
    """Writes tensors as little-endian `.bin` files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / DIRECTORY
        self._directory.mkdir()
        self.names: list[str] = []

    def add(self, stem: str, values: np.ndarray) -> str:
        """Write one tensor; the file's name."""
        name = f"{stem}.bin"
        (self._directory / name).write_bytes(_little_endian(values))
        self.names.append(name)
        return name

    def describe(self, stem: str, tensor: str, values: np.ndarray) -> dict[str, object]:
        """Write one tensor; its entry in the pack."""
        return {
            "name": tensor,
            "file": self.add(stem, values),
            "dtype": values.dtype.name,
            "shape": list(values.shape),
            "sha256": hashlib.sha256(_little_endian(values)).hexdigest(),
        }


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """What an output may differ by, in real units; `lsb` where it holds integers."""

    own: float
    apart: float
    lsb: int | None


def _limits(
    spec: TensorSpec, cases: Sequence[GoldenCase], output_steps: Mapping[str, float]
) -> _Limits:
    values = [(_real(item.artifact[spec.name], spec), item) for item in cases]
    apart = max(_difference(real, item.reference[spec.name]) for real, item in values)
    if spec.scale is not None:
        steps = max(_STEPS, math.ceil(apart / spec.scale - _ROUNDING))
        return _Limits(own=steps * spec.scale, apart=apart, lsb=steps)
    peak = max(float(np.abs(real).max(initial=0.0)) for real, _ in values)
    own = output_steps.get(spec.name, max(_FLOAT_TOLERANCE * (peak or 1.0), apart))
    return _Limits(own=own, apart=apart, lsb=None)


def _expectations(
    pack: GoldenFiles, stem: str, spec: TensorSpec, case: GoldenCase, limits: _Limits
) -> list[dict[str, object]]:
    own = {"kind": "close", "limit": limits.own}
    if limits.lsb is not None:
        own = {"kind": "lsb", "limit": limits.lsb}
    expectations = []
    for kind, values, compare in (
        ("artifact-on-host", case.artifact[spec.name], own),
        (
            "float-model",
            case.reference[spec.name],
            {"kind": "close", "limit": limits.own + limits.apart},
        ),
    ):
        described = pack.describe(f"{stem}.{kind}", spec.name, values)
        del described["sha256"]
        expectations.append({**described, "of": kind, "compare": compare})
    return expectations


def _real(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    return values if spec.scale is None else dequantize(values, spec)


def _laid_out(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The float model's output in the layout of the artifact's."""
    return values.transpose(0, 2, 3, 1) if spec.layout is Layout.NHWC else values


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other).max(initial=0.0))


def _little_endian(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()
