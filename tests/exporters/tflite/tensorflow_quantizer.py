"""TensorFlow's quantizer with given ranges: float.tflite ranges.json int8.tflite.

Runs in an environment of its own, with TensorFlow and without edgeship; the ranges are
{tensor name: [low, high]}.
"""

import json
import sys
from pathlib import Path
from typing import Any

_FLOAT = 0  # schema.fbs, enum TensorType


def main(float_file: str, ranges_file: str, output: str) -> None:
    import flatbuffers
    import tensorflow as tf  # type: ignore[import-untyped]  # not in this environment
    from tensorflow.lite.python import convert  # type: ignore[import-untyped]  # the same
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(Path(float_file).read_bytes(), 0)
    inject(model, json.loads(Path(ranges_file).read_text()), schema)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    int8 = convert.convert_inference_tf_type_to_tflite_type(tf.int8, "int8")
    quantized = convert.mlir_quantize(
        bytes(builder.Output()),
        fully_quantize=True,
        inference_type=int8,
        input_data_type=int8,
        output_data_type=int8,
    )
    Path(output).write_bytes(quantized)


def inject(model: Any, ranges: dict[str, tuple[float, float]], schema: Any) -> None:  # noqa: ANN401 the vendor has no types
    # with this entry the weights are imported as StableHLO constants, and every layer stays float
    model.metadata = [item for item in model.metadata if item.name != b"keep_stablehlo_constant"]
    for tensor in model.subgraphs[0].tensors:
        name = tensor.name.decode()
        if tensor.type == _FLOAT and name in ranges:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.min, tensor.quantization.max = ([end] for end in ranges[name])


if __name__ == "__main__":
    main(*sys.argv[1:])
