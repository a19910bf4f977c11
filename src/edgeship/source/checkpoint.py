"""Checkpoint: tensors by name, out of safetensors or a torch file; nothing in it ever runs."""

from __future__ import annotations

import pickle
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


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, with wrapper dicts and wrapper prefixes taken off.

    Torch files are read with `weights_only=True` always: a pickle that names anything but tensors
    and containers is refused before it runs.

    Raises:
        ConfigurationError: Another kind of file, a damaged one, or one without tensors.
        IntegrityRefused: A pickle that wants to run code.
    """
    if path.suffix in SAFETENSORS:
        return without_prefixes(_read_safetensors(path))
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
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = str(error)
        if "Unsupported" not in message and "WeightsUnpickler" not in message:
            raise _damaged(path, error) from error
        problem = Problem(
            where=str(path),
            what="the pickle in it wants to do more than hold tensors; nothing of it ran",
            found=_reason(message),
            remedy="save the state_dict alone, best with safetensors",
        )
        raise IntegrityRefused(problem) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    except (AttributeError, IndexError, AssertionError, OverflowError) as error:
        raise _damaged(path, error) from error  # torch's unpickler on bytes that are no pickle


def _tensors_of(value: object, path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, which may be nested in wrapper dicts."""
    from torch import Tensor

    while isinstance(value, Mapping):
        tensors = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
        inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None or len(tensors) > len(inner):
            if tensors:
                return tensors
            break
        value = inner
    found = f"keys {', '.join(map(str, value))}" if isinstance(value, Mapping) else type(value)
    problem = Problem(
        where=str(path),
        what="no tensors were found",
        expected=f"a state_dict, or one under a key such as {', '.join(_WRAPPERS[:3])}",
        found=str(found),
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
    telling = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return next(iter(telling or lines), "")[:200]
