"""What a runtime can do for the rest of the house, and which ones there are."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


class Session(Protocol):
    """A loaded file."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name, for inputs by name with the contract's shapes and dtypes."""
        ...


class Runtime(Protocol):
    """Runs files of one kind on this host."""

    def open(self, file: Path, *, threads: int = 1) -> Session:
        """Load a file as an application would; raises ExportFailed if the runtime refuses it."""
        ...

    def observe(self, file: Path, names: Sequence[str]) -> AbstractContextManager[Session]:
        """A session that yields the tensors `names` inside of a float file."""
        ...


RUNTIMES: Final[Mapping[str, str]] = {"onnxruntime": "edgeship.runtimes.ort:OrtRuntime"}
"""Distribution name -> "module:class"; importing one imports its vendor package when it is used."""


def load_runtime(name: str) -> Runtime:
    """The runtime of a distribution name in `RUNTIMES`."""
    module, _, attribute = RUNTIMES[name].partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), attribute)()
    return runtime
