"""Refusals: checkpoints that these architectures cannot be, told from `config.json` alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.architectures.configuration import Configuration

WAY_ROUND: Final = 'name llama.cpp\'s own converter: converter = "PATH/convert_hf_to_gguf.py"'
_FOREIGN: Final = {
    "num_local_experts": "a mixture of experts",
    "num_experts": "a mixture of experts",
    "n_routed_experts": "a mixture of experts",
    "draft_vocab_size": "a draft model for speculative decoding",
    "text_config": "a model of several modes",
    "quantization_config": "quantized already",
}
"""Keys that make another model of an architecture that is known by its name."""


def unknown_architecture(
    configuration: Configuration, name: str | None, known: Iterable[str]
) -> ExportFailed:
    """The error of an architecture that is not in the table."""
    return ExportFailed(
        Problem(
            where=f"{configuration.where}: architectures",
            what="this architecture cannot be written as GGUF here",
            expected=", ".join(known),
            found=name or "none",
            remedy=WAY_ROUND,
        )
    )


def unsupported(configuration: Configuration, key: str, what: str) -> ExportFailed:
    """The error of a property that the architecture does not have in llama.cpp."""
    where = f"{configuration.where}: {key}"
    return ExportFailed(Problem(where=where, what=what, remedy=WAY_ROUND))


def refuse_foreign(configuration: Configuration) -> None:
    """Look for keys that make another model of it.

    Raises:
        ExportFailed: There is one.
    """
    for key, what in _FOREIGN.items():
        if configuration.is_set(key):
            raise unsupported(configuration, key, f"the checkpoint is {what}")


def refuse_activation(configuration: Configuration, taken: tuple[str, ...]) -> None:
    """Check the activation function; one that is left out is the class's, which is taken.

    Raises:
        ExportFailed: llama.cpp computes another one.
    """
    name = configuration.text("hidden_act", taken[0])
    if name not in taken:
        what = f"llama.cpp computes {taken[0]} here, the checkpoint was trained with {name}"
        raise unsupported(configuration, "hidden_act", what)
