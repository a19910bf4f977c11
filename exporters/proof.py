"""Proof: a lowered file computes what the torch module does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.errors import ExportFailed, Problem
from edgeship.source.difference import relative_difference

if TYPE_CHECKING:
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
