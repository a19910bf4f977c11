"""Model: the loaded float module and its contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeship.contract import Contract, TensorSpec
from edgeship.errors import ConfigurationError, Problem
from edgeship.project import FactorySource, ModelSection
from edgeship.source.causal import load_causal
from edgeship.source.checkpoint import check_weights
from edgeship.source.encoder import is_causal, load_encoder
from edgeship.source.factory_module import load_factory_module
from edgeship.source.onnx_file import OpenSession, load_onnx
from edgeship.source.program import load_program

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Model:
    """A float32 torch module in evaluation mode, and what goes in and comes out.

    Attributes:
        original: The `.onnx` file that the module only runs; None where it can be exported.
        notes: Lines for people: what was chosen, left out or put together to load it.
    """

    module: nn.Module
    contract: Contract
    original: Path | None = None
    notes: tuple[str, ...] = ()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name, shapes as in the contract."""
        import torch

        # copies: a module may work in place, and the caller goes on to use the inputs
        arguments = [torch.tensor(inputs[spec.name]) for spec in self.contract.inputs]
        with torch.no_grad(), one_thread():
            tensors = output_tensors(self.module(*arguments))
        names = [spec.name for spec in self.contract.outputs]
        return {name: tensors[key].numpy() for name, key in zip(names, tensors, strict=True)}


@contextmanager
def one_thread() -> Iterator[None]:
    """One sample gives several threads little to do, and waiting for each other costs them much.

    ResNet-20 took 281 ms with two threads on two busy cores, 3.2 ms with one (measured).
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_model(section: ModelSection, open_session: OpenSession | None = None) -> Model:
    """Load the module of a project and derive its contract.

    Called within `project_imports`.

    Args:
        section: Of the project.
        open_session: Opens an `.onnx` file to run it; needed where the source is one.

    Raises:
        ConfigurationError: Source and inputs do not fit together, or cannot be loaded.
        IntegrityRefused: The file would run code, or is not what it claims to be.
    """
    specs = section.input_specs()
    source = section.source
    original: Path | None = None
    notes: tuple[str, ...] = ()
    if isinstance(source, FactorySource):
        module, notes = load_factory_module(source)
        where = f"{source.factory.file.name}:{source.factory.attribute}"
        module = module.eval()
    elif source.kind == "program":
        module = load_program(source.path, specs)
        where = str(source.path)
    elif source.kind == "onnx":
        assert open_session is not None  # the pipeline knows a runtime
        module = load_onnx(source.path, specs, open_session)
        where, original = str(source.path), source.path
    elif is_causal(source.path):
        module = load_causal(source.path, tuple(spec.name for spec in specs))
        where = str(source.path)
    else:
        check_weights(source.path)
        module = load_encoder(source.path, section.output, tuple(spec.name for spec in specs))
        where = str(source.path)
        module = module.eval()
    module = module.requires_grad_(requires_grad=False)
    contract = _derive_contract(module, section, where)
    return Model(module=module, contract=contract, original=original, notes=notes)


def example_inputs(contract_inputs: Sequence[TensorSpec]) -> tuple[Tensor, ...]:
    """Tensors that fit the inputs: zeros, and ones where they are token ids and masks."""
    import torch

    return tuple(
        torch.zeros(spec.shape)
        if spec.dtype == "float32"
        else torch.ones(spec.shape, dtype=getattr(torch, spec.dtype))
        for spec in contract_inputs
    )


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


def _derive_contract(module: nn.Module, section: ModelSection, where: str) -> Contract:
    """Run the module once on example inputs to learn its outputs."""
    import torch

    inputs = section.input_specs()
    try:
        with torch.no_grad():
            result = module(*example_inputs(inputs))
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
