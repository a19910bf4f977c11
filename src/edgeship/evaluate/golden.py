"""Golden pack: inputs, expected outputs and tolerances that travel with an artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeship.calibration.samples import LoadedSample
from edgeship.contract import Contract
from edgeship.errors import ExportFailed, Problem
from edgeship.evaluate.outputs import Run
from edgeship.vocabulary import ChannelOrder

DIRECTORY: Final = "golden"
PACK_NAME: Final = "golden.json"
CASES: Final = 4
_SCHEMA: Final = 1
_FLOAT_TOLERANCE: Final = 1e-4
"""Of the largest magnitude: what the exporter allows itself, and 100 times what x86 and ARM differ
by in ONNX Runtime's float kernels (1e-6, measured)."""


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """One sample through the artifact on this host and through the float model."""

    name: str
    sample: LoadedSample
    artifact: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray]


def run_case(name: str, sample: LoadedSample, artifact: Run, reference: Run) -> GoldenCase:
    """Run one sample through both."""
    return GoldenCase(
        name=name,
        sample=sample,
        artifact=artifact(sample.inputs),
        reference=reference(sample.inputs),
    )


def write_golden_pack(
    directory: Path,
    cases: Sequence[GoldenCase],
    contract: Contract,
    *,
    output_steps: Mapping[str, float],
) -> list[str]:
    """Write `golden/golden.json` and its tensors below `directory`; the names that were written.

    Tolerances of `close` are absolute. Against the artifact on the host: one LSB where the output
    was quantized; else 1e-4 of its largest magnitude, or what the artifact itself differs from the
    float model by in these cases, if that is more: where only the inside is quantized, two
    correct runtimes may round to neighbours, and the outputs then move by that much (MiniLM: by 4 %
    with and without the runtime's fusions, measured). Against the float model: that, plus the
    difference.

    Raises:
        ExportFailed: An output is NaN or infinite: nothing can be held against it.
    """
    for case in cases:
        _require_finite(case, contract)
    pack = _Pack(directory)
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
            pack.describe(f"case{index}.{position}", spec.name, case.sample.inputs[spec.name])
            for position, spec in enumerate(contract.inputs)
        ]
        entry["expect"] = [
            expected
            for position, spec in enumerate(contract.outputs)
            for expected in _expectations(
                pack, f"case{index}.{position}", spec.name, case, cases, output_steps
            )
        ]
        entries.append(entry)
    text = json.dumps({"schema": _SCHEMA, "cases": entries}, indent=1, allow_nan=False)
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


class _Pack:
    """Writes tensors as little-endian `.bin` files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / DIRECTORY
        self._directory.mkdir()
        self.names: list[str] = []

    def add(self, stem: str, values: np.ndarray) -> str:
        name = f"{stem}.bin"
        (self._directory / name).write_bytes(_little_endian(values))
        self.names.append(name)
        return name

    def describe(self, stem: str, tensor: str, values: np.ndarray) -> dict[str, object]:
        return {
            "name": tensor,
            "file": self.add(stem, values),
            "dtype": values.dtype.name,
            "shape": list(values.shape),
            "sha256": hashlib.sha256(_little_endian(values)).hexdigest(),
        }


def _expectations(
    pack: _Pack,
    stem: str,
    tensor: str,
    case: GoldenCase,
    cases: Sequence[GoldenCase],
    output_steps: Mapping[str, float],
) -> list[dict[str, object]]:
    peak = max(float(np.abs(item.artifact[tensor]).max(initial=0.0)) for item in cases)
    apart = max(_difference(item.artifact[tensor], item.reference[tensor]) for item in cases)
    own = output_steps.get(tensor, max(_FLOAT_TOLERANCE * (peak or 1.0), apart))
    expectations = []
    for kind, values, limit in (
        ("artifact-on-host", case.artifact[tensor], own),
        ("float-model", case.reference[tensor], own + apart),
    ):
        described = pack.describe(f"{stem}.{kind}", tensor, values)
        del described["sha256"]
        compare = {"kind": "close", "limit": limit}
        expectations.append({**described, "of": kind, "compare": compare})
    return expectations


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other).max(initial=0.0))


def _little_endian(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()
