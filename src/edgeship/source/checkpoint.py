"""Checkpoint: tensors by name, out of safetensors or a torch file; nothing in it ever runs."""

from __future__ import annotations

import pickle
import pickletools
import struct
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, IntegrityRefused, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SAFETENSORS: Final = (".safetensors",)
TORCH: Final = (".pt", ".pth", ".th", ".bin", ".ckpt")
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net", "network", "student")
"""Keys under which training scripts nest the weights, the most specific first."""
_PREFIXES: Final = ("module.", "_orig_mod.")
"""What torch.nn.DataParallel / DistributedDataParallel and torch.compile put before each name."""
_RUNS: Final = ("GLOBAL", "Can only create new object", "Can only build", "unrecognized function")
"""What torch says of a pickle that is whole and wants more (torch/_weights_only_unpickler.py)."""
_IMPORTS: Final = frozenset({"GLOBAL", "INST", "STACK_GLOBAL"})
"""Opcodes by which a pickle names what it wants to call (pickletools)."""
_SCANNED_BYTES: Final = 1 << 16


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, with wrapper dicts and wrapper prefixes taken off.

    Torch files are read with `weights_only=True` always: a pickle that names anything but tensors
    and containers is refused before it runs.

    Raises:
        ConfigurationError: Another kind of file, a damaged one, or one without tensors.
        IntegrityRefused: A pickle that wants to run code.
    """
    if path.suffix in SAFETENSORS:
        return without_prefixes(_tensors_of(_read_safetensors(path), path))
    if path.suffix in TORCH:
        return without_prefixes(_tensors_of(_read_torch(path), path))
    problem = Problem(
        where=str(path),
        what="this kind of checkpoint is not known",
        expected=", ".join((*SAFETENSORS, *TORCH)),
        found=path.suffix or "a name without a suffix",
        remedy="save the state_dict with safetensors",
    )
    raise ConfigurationError(problem)


def without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors; wrapper prefixes that stand before every name are taken off."""
    names = list(tensors)
    for prefix in _PREFIXES:
        while names and all(name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
            return without_prefixes(dict(zip(names, tensors.values(), strict=True)))
    return dict(tensors)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> object:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say of the file, an error says too
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wish = _wish_to_run(path, str(error))
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


def _wish_to_run(path: Path, message: str) -> str | None:
    """What a refused pickle wants to call; None if it is no whole pickle at all.

    Torch stops at the first opcode that it does not know, and a plain pickle of protocol 4 begins
    with one: that one's opcodes are read here, without running them.
    """
    if any(mark in message for mark in _RUNS):
        return _reason(message)
    with path.open("rb") as file:
        content = file.read(_SCANNED_BYTES)
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in _IMPORTS:
                return f"{opcode.name} {argument or ''}".rstrip()
    except (ValueError, IndexError, OverflowError):
        return None
    return None


def _tensors_of(value: object, path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, which may be nested in wrapper dicts."""
    from torch import Tensor

    seen: list[object] = []
    while isinstance(value, Mapping) and not any(value is item for item in seen):
        seen.append(value)  # a pickle may hold a dict that holds itself
        tensors = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
        inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None or len(tensors) > len(inner):
            if tensors:
                return tensors
            break
        value = inner
    if isinstance(value, Mapping):
        found = f"keys {', '.join(map(str, value))}" if value else "nothing"
    else:
        found = type(value).__name__
    problem = Problem(
        where=str(path),
        what="no tensors were found",
        expected=f"a state_dict, or one under a key such as {', '.join(_WRAPPERS[:3])}",
        found=found,
        remedy="save model.state_dict()",
    )
    raise ConfigurationError(problem)


def _damaged(path: Path, error: Exception) -> ConfigurationError:
    problem = Problem(
        where=str(path),
        what="the checkpoint cannot be read",
        found=_reason(str(error)) or type(error).__name__,
        remedy="copy or save it again: it is damaged, cut short, or of another kind than its name",
    )
    return ConfigurationError(problem)


def _reason(message: str) -> str:
    """The first line of a vendor's message that says something, cut at 200 characters."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    telling = [line for line in lines if any(mark in line for mark in ("Unsupported", *_RUNS))]
    return next(iter(telling or lines), "")[:200]
