"""Targets: classes of boards, what their OS images carry and which artifacts they take.

The catalogue is data, one TOML file a board, each fact with its source. A project adds its own row
by a file of the same form.
"""

from edgeship.targets.facts import target_facts
from edgeship.targets.loader import load_target, target_names
from edgeship.targets.target import (
    ActivationType,
    Arch,
    Cpu,
    Emulation,
    FormatFacts,
    Gpu,
    OsImage,
    Runtime,
    RuntimeFact,
    Source,
    Target,
)

__all__ = [
    "ActivationType",
    "Arch",
    "Cpu",
    "Emulation",
    "FormatFacts",
    "Gpu",
    "OsImage",
    "Runtime",
    "RuntimeFact",
    "Source",
    "Target",
    "load_target",
    "target_facts",
    "target_names",
]
