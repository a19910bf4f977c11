"""Factory module: a torch module that a project's factory builds, with the checkpoint's weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem, closest_names
from edgeship.project import FactorySource
from edgeship.source.checkpoint import read_checkpoint
from edgeship.source.imports import load_factory

if TYPE_CHECKING:
    from torch import Tensor, nn

_COUNTERS: Final = "num_batches_tracked"
"""BatchNorm's training counter: without meaning in evaluation, absent from old checkpoints."""
_SHOWN: Final = 5


def load_factory_module(source: FactorySource) -> nn.Module:
    """Build the module with its factory and load the weights, strictly, in float32.

    Called within `project_imports`.

    Raises:
        ConfigurationError: The factory and the weights do not fit together.
        IntegrityRefused: See `read_checkpoint`.
    """
    tensors = read_checkpoint(source.weights)
    module = _build_module(source, tensors).float()  # first: the weights lose nothing on the way
    _load_weights(module, tensors, source)
    return module


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


def _load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: FactorySource) -> None:
    """Load strictly by name and shape; only BatchNorm's counters may be absent."""
    wanted = module.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTERS)}
    missing = [name for name in wanted if name not in given and not name.endswith(_COUNTERS)]
    unexpected = [name for name in given if name not in wanted]
    misshapen = [
        name
        for name, tensor in given.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    where = source.weights.name
    problems = [
        *_name_problems(where, "a tensor of the module is missing", missing, unexpected),
        *_name_problems(where, "a tensor has no place in the module", unexpected, missing),
        *(
            Problem(
                where=f"{where}: {name}",
                what="the shape is another than the module's",
                expected=str(tuple(wanted[name].shape)),
                found=str(tuple(given[name].shape)),
                remedy="build the module at the checkpoint's widths: a factory may take the "
                "checkpoint's shapes as its one argument",
            )
            for name in misshapen[:_SHOWN]
        ),
    ]
    problems += [
        Problem(
            where=f"{where}: {name}",
            what="the tensor holds NaN or infinity",
            expected="finite numbers",
            found=f"{int((~tensor.isfinite()).sum())} of {tensor.numel()}",
            remedy="take a checkpoint from before the training diverged",
        )
        for name, tensor in given.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ][:_SHOWN]
    if problems:
        raise ConfigurationError(*problems)
    module.load_state_dict(given, strict=False)


def _name_problems(
    where: str, what: str, names: Sequence[str], others: Sequence[str]
) -> list[Problem]:
    problems = []
    for name in names[:_SHOWN]:
        close = closest_names(name, others)
        problems.append(
            Problem(
                where=f"{where}: {name}",
                what=what,
                found=f"the closest is {close[0]!r}" if close else None,
                remedy="make factory and weights those of one model",
            )
        )
    if len(names) > _SHOWN:
        rest = f"{what}; {len(names) - _SHOWN} more of this kind"
        problems.append(Problem(where=where, what=rest, remedy="see above"))
    return problems
