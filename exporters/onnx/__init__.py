"""ONNX for ONNX Runtime: fp32, fp16, int8 in QDQ form, and int8 at run time (dynamic)."""
