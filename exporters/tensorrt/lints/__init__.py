"""Lints: what of a graph a version of TensorRT refuses, misreads or cannot fuse, without it.

Rules follow the operator tables and the parser's source where these were read, and NVIDIA's advice
where there is only that; each finding says which. No finding means "buildable per lint", never
"built".
"""

from edgeship.exporters.tensorrt.lints.finding import Finding
from edgeship.exporters.tensorrt.lints.lint import RULES, lint_graph

__all__ = ["RULES", "Finding", "lint_graph"]
