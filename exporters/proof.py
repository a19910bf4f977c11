"""Proof: a lowered file computes what the torch module does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.errors import ExportFailed, Problem

if TYPE_CHECKING:
    import numpy as np

    from edgeship.exporters.protocol import Source
    from edgeship.runtimes.protocol import Session

TOLERANCE: Final = 1e-4
"""Largest difference from the torch module, relative to the output's largest magnitude. Exporters'
own, measured: onnx 4e-6 for ResNet-20 and 2e-7 for MiniLM, tflite 5e-7 and 1e-6."""


def prove(session: Session, source: Source, *, where: str) -> None:
    """Run the probes through the model and the file and compare every output.

    Args:
        session: Of the lowered file, taking and giving what the float model does.
        source: The model and its probes.
        where: What the file is called.

    Raises:
        ExportFailed: They differ by more than `TOLERANCE`, or one of them is NaN.
    """
    for index, inputs in enumerate(source.probes):
        expected = source.model.run(inputs)
        found = session.run(inputs)
        for name, values in expected.items():
            difference = relative_difference(values, found[name])
            if not difference <= TOLERANCE:
                problem = Problem(
                    where=f"{where}: output {name!r}, sample {index}",
                    what=f"the exported {where} computes something else than the model",
                    expected=f"a difference of at most {TOLERANCE:g} of the largest magnitude",
                    found=f"{difference:.2g}",
                    remedy="look for randomness or data-dependent branches in the module",
                )
                raise ExportFailed(problem)


def relative_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference over the largest expected magnitude; NaN if either holds NaN."""
    import numpy as np

    wanted = expected.astype(np.float64)  # booleans and unsigned integers cannot be subtracted
    scale = float(np.abs(wanted).max(initial=0.0)) or 1.0
    return float(np.abs(wanted - found).max(initial=0.0)) / scale
