"""TFLite files: float by litert-torch, integers by ai-edge-quantizer with our ranges."""
