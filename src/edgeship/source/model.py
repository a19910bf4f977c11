"""Model: the loaded float module and its contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeship.contract import Contract, TensorSpec
from edgeship.errors import ConfigurationError, Problem, closest_names
from edgeship.project import FactorySource, ModelSection
from edgeship.source.checkpoint import read_checkpoint
from edgeship.source.imports import load_factory

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

_COUNTERS: Final = "num_batches_tracked"
"""BatchNorm's training counter: without meaning in evaluation, absent from old checkpoints."""
_SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True)
class Model:
    """A float32 torch module in evaluation mode, and what goes in and comes out."""

    module: nn.Module
    contract: Contract

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name, shapes as in the contract."""
        import torch

        # copies: a module may work in place, and the caller goes on to use the inputs
        arguments = [torch.tensor(inputs[spec.name]) for spec in self.contract.inputs]
        with torch.no_grad():
            tensors = output_tensors(self.module(*arguments))
        names = [spec.name for spec in self.contract.outputs]
        return {name: tensors[key].numpy() for name, key in zip(names, tensors, strict=True)}


def load_model(section: ModelSection) -> Model:
    """Build the module with its factory, load the weights, and derive the contract.

    Called within `project_imports`.

    Raises:
        ConfigurationError: The factory, the weights and the inputs do not fit together.
        IntegrityRefused: See `read_checkpoint`.
    """
    source = section.source
    assert isinstance(source, FactorySource)  # the exporters' problems() refuse the others
    tensors = read_checkpoint(source.weights)
    module = _build_module(source, tensors).float()  # first: the weights lose nothing on the way
    _load_weights(module, tensors, source)
    module = module.eval().requires_grad_(requires_grad=False)
    return Model(module=module, contract=_derive_contract(module, section, source))


def output_tensors(value: object) -> dict[str, Tensor]:
    """The tensors of a module's result by name: one, a sequence, or a mapping of them.

    Raises:
        TypeError: Anything else.
    """
    from torch import Tensor

    if isinstance(value, Tensor):
        return {"": value}
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, Sequence):
        items = [(f"output_{index}", item) for index, item in enumerate(value)]
    else:
        items = []
    tensors = {key: item for key, item in items if isinstance(item, Tensor)}
    if not tensors or len(tensors) != len(items):
        raise TypeError(type(value).__name__)
    return tensors


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


def _derive_contract(module: nn.Module, section: ModelSection, source: FactorySource) -> Contract:
    """Run the module once on zeros to learn its outputs."""
    import torch

    inputs = tuple(item.spec() for item in section.inputs)
    where = f"{source.factory.file.name}:{source.factory.attribute}"
    try:
        with torch.no_grad():
            result = module(*(torch.zeros(spec.shape) for spec in inputs))
        arrays = {key: tensor.numpy() for key, tensor in output_tensors(result).items()}
    except Exception as error:  # the user's code: whatever it raises is said, with its cause
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs)
        problem = Problem(
            where=where,
            what=f"the module cannot be run on inputs {shapes}",
            expected="a tensor, or a sequence or mapping of tensors",
            found=f"{type(error).__name__}: {error}",
            remedy="correct model.inputs, or the module",
        )
        raise ConfigurationError(problem) from error
    labels = None if section.labels is None else section.labels.name
    name = "logits" if labels is not None or section.task == "classification" else "output"
    outputs = tuple(
        TensorSpec(
            name=key or name,
            shape=array.shape,
            dtype=str(array.dtype),
            labels=labels if index == 0 else None,
        )
        for index, (key, array) in enumerate(arrays.items())
    )
    return Contract(inputs=inputs, outputs=outputs)
