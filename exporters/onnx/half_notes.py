"""What is said of a float16 ONNX file: on the build host nothing of it overflows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeship.exporters.half_notes import stay_notes

if TYPE_CHECKING:
    import onnx

    from edgeship.exporters.half import HalfGraph


def half_notes(proto: onnx.ModelProto, half: HalfGraph) -> list[str]:
    """Lines for the manifest; `proto` is the Graph that `half` was made of."""
    return [
        "ONNX Runtime's CPU computes in float32: overflow was judged from representative data",
        *stay_notes(proto, half),
    ]
