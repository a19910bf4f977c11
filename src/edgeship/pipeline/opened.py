"""Opened: the project's model and the files that its factory imports, once they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING

from edgeship.exporters.protocol import Exporter
from edgeship.pipeline.runner import require_packages
from edgeship.pipeline.workspace import Workspace
from edgeship.runtimes.protocol import load_runtime

if TYPE_CHECKING:
    from edgeship.source.imports import ProjectImports
    from edgeship.source.model import Model


class OpenedModel:
    """Loads the model at most once in a build; the factory's imports last as long as `stack`."""

    def __init__(self, workspace: Workspace, stack: ExitStack) -> None:
        self._workspace = workspace
        self._stack = stack

    def imports(self, exporter: Exporter) -> Mapping[str, str]:
        """Digests of the project's imported files, from memory if none has changed."""
        known = self._workspace.known_imports()
        if known is not None:
            return known
        require_packages(exporter)
        return self._learnt

    def load(self) -> Model:
        """The float model, as `model`."""
        return self.model

    @cached_property
    def model(self) -> Model:
        """The float model."""
        from edgeship.source.model import load_model

        self._opened  # noqa: B018 - for the factory
        return load_model(self._workspace.project.model, load_runtime("onnxruntime").open)

    @cached_property
    def _learnt(self) -> Mapping[str, str]:
        """Of the whole model, since a factory may import when it is called."""
        _ = self.model  # loaded, and thereby everything imported
        return self._workspace.remember_imports(self._opened.files())

    @cached_property
    def _opened(self) -> ProjectImports:
        from edgeship.source.imports import project_imports

        return self._stack.enter_context(project_imports(self._workspace.project.directory))
