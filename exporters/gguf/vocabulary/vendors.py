"""Vendors: the packages that read and run tokenizers, or one clear error."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgeship.errors import Problem, RequirementMissing

if TYPE_CHECKING:
    from types import ModuleType


def vendor(name: str) -> ModuleType:
    """The package of that name.

    Raises:
        RequirementMissing: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        problem = Problem(
            where="gguf",
            what=f"the package {name} is missing, which vocabularies need",
            found=str(error),
            remedy="pip install 'edgeship[gguf]'",
        )
        raise RequirementMissing(problem) from error
