"""Engine kit: what builds and judges TensorRT engines on a board (Python 3.6, standard library)."""
