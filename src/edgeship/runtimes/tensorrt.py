"""TensorRT: its engines are built on the board that runs them, and run there alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from edgeship.errors import Problem, RequirementMissing
from edgeship.runtimes.protocol import installed_version, runtime_package

if TYPE_CHECKING:
    from pathlib import Path


class TensorRtRuntime:
    """What a board has; on this host it runs nothing."""

    def version(self) -> str | None:
        """See `Runtime.version`."""
        return installed_version(runtime_package("tensorrt"))

    def open(self, file: Path, *, threads: int = 1) -> NoReturn:  # noqa: ARG002 - a Runtime
        """Refuses: an engine belongs to the board, the GPU and the version that built it.

        Raises:
            RequirementMissing: Always.
        """
        problem = Problem(
            where=str(file),
            what="TensorRT runs no graph: its engine is built on the board",
            remedy="run build_engine.py of the kit there, or `edgeship test --device NAME`",
        )
        raise RequirementMissing(problem)
