"""Which formats can be made: a literal table, read without importing what it names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

from edgeship.exporters.protocol import Exporter
from edgeship.vocabulary import Format

EXPORTERS: Final[Mapping[Format, str]] = {
    Format.ONNX: "edgeship.exporters.onnx.exporter:OnnxExporter",
    Format.TFLITE: "edgeship.exporters.tflite.exporter:TfliteExporter",
    Format.GGUF: "edgeship.exporters.gguf.exporter:GgufExporter",
    Format.TENSORRT: "edgeship.exporters.tensorrt.exporter:TensorRtExporter",
}
"""Format -> "module:class"."""


def load_exporter(format_: Format) -> Exporter:
    """The exporter of a format in `EXPORTERS`."""
    module, _, attribute = EXPORTERS[format_].partition(":")
    exporter: Exporter = getattr(importlib.import_module(module), attribute)()
    return exporter
