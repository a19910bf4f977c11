"""ONNX for ONNX Runtime: fp32, and int8 in QDQ form."""
