"""Factory module: a torch module that a project's factory builds, with the checkpoint's weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeship.errors import ConfigurationError, Problem
from edgeship.project import FactorySource
from edgeship.source.checkpoint import read_stored
from edgeship.source.imports import load_factory
from edgeship.source.pruning import fold_pruning
from edgeship.source.weights import load_weights
from edgeship.source.wrappers import choice_notes, choose_candidate, find_candidates

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_factory_module(source: FactorySource) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the module with its factory and load the weights, strictly, in float32.

    Called within `project_imports`. A factory with an argument gets the shapes of the checkpoint's
    first reading (see `find_candidates`), with pruned weights folded.

    Returns:
        The module, and notes for people: what was left out, folded or widened.

    Raises:
        ConfigurationError: The factory and the weights do not fit together.
        IntegrityRefused: See `read_stored`.
    """
    where = source.weights.name
    candidates = find_candidates(read_stored(source.weights), where=str(source.weights))
    shapes, _ = fold_pruning(candidates[0].tensors)
    module = _build_module(source, shapes).float()  # first: the weights lose nothing on the way
    own = module.state_dict().keys()
    folded, counts = [], {}
    for candidate in candidates:
        tensors, count = fold_pruning(candidate.tensors, own)
        folded.append(replace(candidate, tensors=tensors))
        counts[id(tensors)] = count
    chosen = choose_candidate(folded, own)
    notes = list(choice_notes(folded, chosen))
    if counts[id(chosen.tensors)]:
        count = counts[id(chosen.tensors)]
        notes.append(f"{count} pruned tensors were put together from name_orig and name_mask")
    notes += load_weights(module, chosen.tensors, where)
    return module, tuple(notes)


def _build_module(source: FactorySource, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Call the factory, with the tensors' shapes if it requires an argument."""
    from torch import nn

    function = load_factory(source.factory)
    takes_shapes = _requires_argument(function)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    where = f"{source.factory.file.name}:{source.factory.attribute}"
    try:
        module = function(shapes) if takes_shapes else function()
    except (Exception, SystemExit) as error:  # the user's code: whatever it raises is said
        problem = Problem(
            where=where,
            what="the factory fails",
            found=f"{type(error).__name__}: {error}",
            remedy="make it build the module from the checkpoint's tensor shapes"
            if takes_shapes
            else "make it build the module without an argument",
        )
        raise ConfigurationError(problem) from error
    if not isinstance(module, nn.Module):
        problem = Problem(
            where=where,
            what="the factory returns no module",
            expected="torch.nn.Module",
            found=type(module).__name__,
            remedy="return the module",
        )
        raise ConfigurationError(problem)
    return module


def _requires_argument(function: Callable[..., object]) -> bool:
    """Whether a parameter has no default: `build(classes=10)` is called without an argument."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(
        parameter.default is parameter.empty and parameter.kind not in variadic
        for parameter in inspect.signature(function).parameters.values()
    )
