"""The speed stage: an artifact against the float file that it was made from, on this host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeship.contract import TensorSpec
from edgeship.errors import ExportFailed
from edgeship.evaluate.delegates import check_delegates
from edgeship.evaluate.speed import compare_speed
from edgeship.exporters.protocol import Lowered
from edgeship.measurements import SpeedShare
from edgeship.pipeline.data import ProjectData
from edgeship.pipeline.stages import model_file, read_payload
from edgeship.runtimes.adapter import encode_inputs
from edgeship.runtimes.delegation import examine_delegation, fallen_out
from edgeship.runtimes.protocol import load_runtime

_NAME: Final = "speed.json"
_THREADS: Final = 1
_DELEGATING: Final = "litert"
"""The runtime whose delegate takes some operators and leaves others."""


def measure_speed(
    lowered: Lowered,
    emitted: Path,
    inputs: Sequence[TensorSpec],
    data: ProjectData,
    directory: Path,
) -> None:
    """Artifact x Lowered -> how much longer it takes, in the runtime that both share.

    Args:
        lowered: The float file.
        emitted: The result of `emit`.
        inputs: Of the float model.
        data: Of the project, whose first probe both run.
        directory: Where the result is written.
    """
    payload = read_payload(emitted)
    file = model_file(emitted, payload)
    runtime = load_runtime(lowered.runtime)
    one = runtime.open(file, threads=_THREADS)
    other = runtime.open(lowered.file, threads=_THREADS)
    sample = data.probes()[0][1].inputs
    stored = encode_inputs(sample, inputs, payload.contract)
    floats = encode_inputs(sample, inputs, lowered.contract)
    found = compare_speed(lambda: one.run(stored), lambda: other.run(floats))
    outside, delegates = {}, ""
    if lowered.runtime == _DELEGATING:
        outside = fallen_out(examine_delegation(file), examine_delegation(lowered.file))
        delegates = _explanation(file) if found.is_slower else ""
    share = SpeedShare(
        float_ratio=found.ratio,
        spread=found.spread,
        wall_ratio=found.wall_ratio,
        outside_delegate=outside,
        threads=_THREADS,
        delegates=delegates,
    )
    text = json.dumps(share.to_json(), indent=1, allow_nan=False)
    (directory / _NAME).write_text(text, encoding="utf-8")


def _explanation(file: Path) -> str:
    try:
        return check_delegates(file).line
    except ExportFailed:  # an operator does not run by itself, on values that were made up
        return ""


def read_speed(directory: Path) -> SpeedShare:
    """What `measure_speed` wrote."""
    return SpeedShare.from_json(json.loads((directory / _NAME).read_bytes()))
