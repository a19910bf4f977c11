"""Torch source: the tensors of a torch file, which torch holds in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.checkpoint import read_checkpoint
from edgeship.source.element import Bits, ElementType
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import Span, TensorEntry

if TYPE_CHECKING:
    from torch import Tensor

_ELEMENTS: Final[Mapping[str, ElementType]] = {
    "torch.float64": ElementType.F64,
    "torch.float32": ElementType.F32,
    "torch.float16": ElementType.F16,
    "torch.bfloat16": ElementType.BF16,
    "torch.float8_e4m3fn": ElementType.F8_E4M3,
    "torch.float8_e5m2": ElementType.F8_E5M2,
    "torch.int64": ElementType.I64,
    "torch.int32": ElementType.I32,
    "torch.int16": ElementType.I16,
    "torch.int8": ElementType.I8,
    "torch.uint64": ElementType.U64,
    "torch.uint32": ElementType.U32,
    "torch.uint16": ElementType.U16,
    "torch.uint8": ElementType.U8,
    "torch.bool": ElementType.BOOL,
}


class TorchSource:
    """A `TensorSource` over a torch file; memory is torch and the whole file.

    Quantized tensors are told as their integers.

    Raises:
        ConfigurationError: See `read_checkpoint`; a tensor that is sparse, of a type that is not
            known here, or that claims more elements than the file holds.
        IntegrityRefused: See `read_checkpoint`.
    """

    def __init__(self, path: Path) -> None:
        tensors = read_checkpoint(path)
        self._flat: dict[str, Tensor] = {}
        self._entries: dict[str, TensorEntry] = {}
        for name, tensor in tensors.items():
            dense = _dense(tensor, where=f"{path}: {shown_name(name)}")
            element = _ELEMENTS[str(dense.dtype)]
            shape = tuple(dense.shape)
            self._entries[name] = TensorEntry(name=name, element=element, shape=shape)
            self._flat[name] = dense

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Every tensor, in the order of the file."""
        return self._entries

    def read(self, name: str, span: Span) -> Bits:
        """See `TensorSource`."""
        import torch

        part = self._flat[name].reshape(-1)[span.start : span.start + span.count]
        raw: Bits = part.contiguous().view(torch.uint8).numpy()
        return raw.view(self._entries[name].element.bits_dtype)


def _dense(tensor: Tensor, *, where: str) -> Tensor:
    """The tensor without gradient, as its integers if it is quantized, if it can be read at all."""
    import torch

    tensor = tensor.detach()
    found = str(tensor.dtype)
    if tensor.layout is torch.strided and tensor.device.type == "cpu":
        if tensor.is_quantized:
            tensor = tensor.int_repr()
        claimed = tensor.numel() * tensor.element_size()
        held = tensor.untyped_storage().nbytes()
        if str(tensor.dtype) in _ELEMENTS and claimed <= held:
            return tensor
        if claimed > held:
            found = f"{claimed} bytes in the shape, {held} in the file"
    elif tensor.layout is not torch.strided:
        found = str(tensor.layout)
    else:
        found = f"no elements: device {tensor.device.type}"
    problem = Problem(
        where=where,
        what="this kind of tensor cannot be surveyed",
        expected="dense real numbers",
        found=found,
        remedy="save it dense, with safetensors",
    )
    raise ConfigurationError(problem)
