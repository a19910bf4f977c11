"""Torch file: what `torch.save` wrote, read as tensors and containers; nothing in it ever runs."""

from __future__ import annotations

import pickle
import pickletools
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, IntegrityRefused, Problem
from edgeship.source.archive import LARGEST_RATIO, SLACK_BYTES, check_archive, damaged, is_archive

if TYPE_CHECKING:
    from torch import Tensor

_RUNS: Final = ("GLOBAL", "Can only create new object", "Can only build", "unrecognized function")
"""What torch says of a pickle that is whole and wants more (torch/_weights_only_unpickler.py)."""
_IMPORTS: Final = frozenset({"GLOBAL", "INST", "STACK_GLOBAL"})
"""Opcodes by which a pickle names what it wants to call (pickletools)."""
_SCANNED_BYTES: Final = 1 << 16
_DEPTH_LIMIT: Final = 20
"""A choice: training scripts nest two or three deep."""


def read_torch_file(path: Path) -> object:
    """The value in the file, its tensors on the CPU.

    Read with `weights_only=True` always: a pickle that names anything but tensors and containers
    is refused before it runs. Memory is the file's size, times 20 at most.

    Raises:
        ConfigurationError: No such file, or a damaged one.
        IntegrityRefused: A pickle that wants to run code, or tensors and archive members that claim
            more than the file holds.
    """
    try:
        if is_archive(path):
            check_archive(path)
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    value = load_plain(path, path)
    _check_claims(value, path)
    return value


def load_plain(file: Path | IO[bytes], path: Path) -> object:
    """The tensors and containers that `file` holds, a file of its own or a member of `path`.

    Raises:
        ConfigurationError: It is damaged.
        IntegrityRefused: It wants to run code.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say of the file, an error says too
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wish = _wish_to_run(file, str(error))
        if wish is None:
            raise _damaged(path, error) from error
        problem = Problem(
            where=str(path),
            what="the pickle in it wants to do more than hold tensors; nothing of it ran",
            found=wish,
            remedy="save the state_dict alone, best with safetensors",
        )
        raise IntegrityRefused(problem) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise _damaged(path, error) from error
    except (AttributeError, IndexError, AssertionError, OverflowError, struct.error) as error:
        raise _damaged(path, error) from error  # torch's unpickler on bytes that are no pickle


def _wish_to_run(file: Path | IO[bytes], message: str) -> str | None:
    """What a refused pickle wants to call; None if it is no whole pickle at all.

    Torch stops at the first opcode that it does not know, and a plain pickle of protocol 4 begins
    with one: that one's opcodes are read here, without running them.
    """
    if any(mark in message for mark in _RUNS):
        return _reason(message)
    try:
        for opcode, argument, _ in pickletools.genops(_beginning(file)):
            if opcode.name in _IMPORTS:
                return f"{opcode.name} {argument or ''}".rstrip()
    except (ValueError, IndexError, OverflowError):
        return None
    return None


def _beginning(file: Path | IO[bytes]) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(_SCANNED_BYTES)
    file.seek(0)
    return file.read(_SCANNED_BYTES)


def _check_claims(value: object, path: Path) -> None:
    """A stride of 0 lets four bytes claim to be terabytes, which a copy would then need."""
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value, 0))
    size_bytes = path.stat().st_size
    if claimed > LARGEST_RATIO * size_bytes + SLACK_BYTES:
        problem = Problem(
            where=str(path),
            what="the tensors claim more elements than the file can hold",
            expected=f"at most {LARGEST_RATIO} times its {size_bytes} bytes",
            found=f"{claimed} bytes",
            remedy="save the tensors after .contiguous(), best with safetensors",
        )
        raise IntegrityRefused(problem)


def _tensors(value: object, depth: int) -> Iterator[Tensor]:
    """Tensors in nested dicts; a dict may hold itself."""
    from torch import Tensor

    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping) and depth < _DEPTH_LIMIT:
        for item in value.values():
            yield from _tensors(item, depth + 1)


def _damaged(path: Path, error: Exception) -> ConfigurationError:
    return damaged(path, _reason(str(error)) or type(error).__name__)


def _reason(message: str) -> str:
    """The first line of a vendor's message that says something, cut at 200 characters."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    telling = [line for line in lines if any(mark in line for mark in ("Unsupported", *_RUNS))]
    return next(iter(telling or lines), "")[:200]
