"""What ships as ONNX, and what a board needs to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeship.artifact import Requirements, RuntimeNeed
from edgeship.exporters.lowering import RUNTIME
from edgeship.exporters.onnx_file import forecast_memory, write_stripped_file

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

IR_VERSION: Final = 8
"""That of ONNX 1.13, the release of opset 18 (onnx docs/Versioning.md)."""
_MIN_RUNTIME: Final = "1.14"
"""The first with opset 18 and IR 8 (onnxruntime docs, ONNX Runtime compatibility)."""


def write_shipping_file(proto: onnx.ModelProto, file: Path) -> Requirements:
    """Strip, check and write the model; what a board needs to run it.

    Modifies `proto`; see `write_stripped_file`.

    Raises:
        ExportFailed: The result is not valid ONNX.
    """
    write_stripped_file(proto, file, ir_version=IR_VERSION)
    return Requirements(
        any_of=(RuntimeNeed(runtime=RUNTIME, min=_MIN_RUNTIME),),
        memory_bytes=forecast_memory(proto),
    )
