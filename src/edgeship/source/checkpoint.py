"""Checkpoint: tensors by name, out of safetensors, whole or in shards, or of a torch file."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.element import ElementType
from edgeship.source.hf_directory import INDEX, TORCH_WHOLE, WHOLE, open_shards
from edgeship.source.safetensors_file import open_safetensors
from edgeship.source.tensor_source import Span, TensorSource
from edgeship.source.torch_file import read_torch_file
from edgeship.source.wrappers import find_candidates

if TYPE_CHECKING:
    from torch import Tensor, dtype

SAFETENSORS: Final = (".safetensors",)
TORCH: Final = (".pt", ".pth", ".th", ".bin", ".ckpt")
_INDEX_SUFFIX: Final = ".safetensors.index.json"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU: of what the file holds, the first that `find_candidates` names.

    Raises:
        ConfigurationError: Another kind of file, a damaged one, or one without tensors.
        IntegrityRefused: See `read_stored`.
    """
    return find_candidates(read_stored(path), where=str(path))[0].tensors


def read_stored(path: Path) -> object:
    """What a checkpoint holds, as it is stored: tensors in a dict, or in dicts in dicts.

    Of a Hugging Face directory `model.safetensors`, else the shards that its index lists, else
    `pytorch_model.bin`. Nothing in a file ever runs; headers and sizes are checked first.

    Raises:
        ConfigurationError: Nothing there, another kind of file, a damaged one.
        IntegrityRefused: A pickle that wants to run code, a file that claims more than it holds.
    """
    file = _weights_of(path) if path.is_dir() else path
    if file.name.endswith(_INDEX_SUFFIX):
        return _read_tensors(open_shards(file))
    if file.suffix in SAFETENSORS:
        return _read_tensors(open_safetensors(file))
    if file.suffix in TORCH:
        return read_torch_file(file)
    problem = Problem(
        where=str(path),
        what="this kind of checkpoint is not known",
        expected=", ".join((*SAFETENSORS, *TORCH, _INDEX_SUFFIX, "or a Hugging Face directory")),
        found=path.suffix or "a name without a suffix",
        remedy="save the state_dict with safetensors",
    )
    raise ConfigurationError(problem)


def check_weights(directory: Path) -> None:
    """Check the headers of a Hugging Face directory's safetensors, before a vendor reads them.

    Raises:
        ConfigurationError: No weights in safetensors, a damaged file, a shard that is missing.
    """
    file = _weights_of(directory)
    if file.name == INDEX:
        with open_shards(file):
            pass
    elif file.name == WHOLE:
        with open_safetensors(file):
            pass


def stored_files(path: Path) -> list[Path]:
    """The files on which `read_stored` depends; imports no vendor package.

    Of an index every .safetensors file beside it, whether it lists the file or not.
    """
    file = _weights_of(path) if path.is_dir() else path
    if file.name.endswith(_INDEX_SUFFIX):
        return [file, *sorted(file.parent.glob("*.safetensors"))]
    return [file]


def _weights_of(directory: Path) -> Path:
    for name in (WHOLE, INDEX, TORCH_WHOLE):
        if (directory / name).is_file():
            return directory / name
    problem = Problem(
        where=str(directory),
        what="the directory holds no weights",
        expected=f"{WHOLE}, {INDEX} with its shards, or {TORCH_WHOLE}",
        remedy="name a directory that transformers wrote, or a checkpoint file",
    )
    raise ConfigurationError(problem)


def _read_tensors(opened: AbstractContextManager[TensorSource]) -> dict[str, Tensor]:
    """Every tensor of a source whose header is checked; memory is that of the tensors."""
    import torch

    dtypes: dict[ElementType, dtype] = {
        ElementType.F64: torch.float64,
        ElementType.F32: torch.float32,
        ElementType.F16: torch.float16,
        ElementType.BF16: torch.bfloat16,
        ElementType.F8_E4M3: torch.float8_e4m3fn,
        ElementType.F8_E5M2: torch.float8_e5m2,
        ElementType.I64: torch.int64,
        ElementType.I32: torch.int32,
        ElementType.I16: torch.int16,
        ElementType.I8: torch.int8,
        ElementType.U64: torch.uint64,
        ElementType.U32: torch.uint32,
        ElementType.U16: torch.uint16,
        ElementType.U8: torch.uint8,
        ElementType.BOOL: torch.bool,
    }
    tensors = {}
    with opened as source:
        for name, entry in source.entries.items():
            bits = source.read(name, Span(start=0, count=entry.elements))
            if entry.element is ElementType.BOOL:
                bits = bits != 0  # any other byte is no bool to torch
            raw = torch.from_numpy(bits.copy())  # what is read is not to be written to
            tensors[name] = raw.view(dtypes[entry.element]).reshape(entry.shape)
    return tensors
