"""Run a file and observe its tensors; the only place that wraps a runtime."""
