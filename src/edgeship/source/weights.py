"""Weights: the tensors of a checkpoint, held against a module's and put into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from edgeship.errors import ConfigurationError, Problem, closest_names
from edgeship.source.pruning import parametrization_problems
from edgeship.source.tensor_name import is_quantizer_state, shown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

COUNTERS: Final = "num_batches_tracked"
"""BatchNorm's training counter: without meaning in evaluation, absent from old checkpoints."""
_SHOWN: Final = 5
_HALF: Final = ("torch.float16", "torch.bfloat16")
_PACKED: Final = ("torch.int8", "torch.uint8", "torch.int16", "torch.int32")
"""What quantizers store weights in: torch.ao one by one, GPTQ and AWQ packed, eight in an int32."""
_NARROW: Final = "torch.float8"
"""Floats of 8 bits mean nothing without the scale that their quantizer keeps elsewhere."""


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> list[str]:
    """Put `tensors` into a float32 module, strictly by name and shape; give notes for people.

    Floats of 16 and 64 bits become float32. Only BatchNorm's counters may be absent, and names of
    tensors that the module itself ties to one that is there.

    Raises:
        ConfigurationError: With every kind of misfit, the first of each by name.
    """
    from torch import Tensor

    wanted = {
        name: item
        for name, item in module.state_dict(keep_vars=True).items()
        if isinstance(item, Tensor)  # a module may keep more in it than tensors
    }
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTERS)}
    ties = _ties(wanted)
    problems = list(_quantized_problems(where, given, wanted))
    if not problems:
        problems = parametrization_problems(where, given, wanted)
    if not problems:
        problems = [
            *_presence_problems(where, given, wanted, ties),
            *_shape_problems(where, given, wanted),
            *_type_problems(where, given, wanted),
            *_value_problems(where, given, wanted, ties),
        ]
    if problems:
        raise ConfigurationError(*problems)
    module.load_state_dict(given, strict=False)
    return list(_notes(given))


def _ties(wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """By each name the others of the same storage, shape and strides: one tensor, many names."""
    groups: dict[object, list[str]] = {}
    for name, tensor in wanted.items():
        if tensor.numel():
            key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
            groups.setdefault(key, []).append(name)
    return {
        name: [other for other in names if other != name]
        for names in groups.values()
        for name in names
    }


def _quantized_problems(
    where: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Iterator[Problem]:
    """Integers in the place of floats, and what quantizers keep beside them: one problem."""
    names = [
        name
        for name, tensor in given.items()
        if tensor.is_quantized
        or str(tensor.dtype).startswith(_NARROW)
        or (name in wanted and str(tensor.dtype) in _PACKED and _kind(wanted[name]) == "floats")
        or (name not in wanted and is_quantizer_state(name))
    ]
    if names:
        kinds = Counter(str(given[name].dtype).removeprefix("torch.") for name in names)
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        yield Problem(
            where=where,
            what="the checkpoint is quantized",
            expected="float tensors",
            found=f"{_listed(names)} ({counted})",
            remedy="name the float checkpoint that it was made from: edgeship quantizes itself",
        )


def _presence_problems(
    where: str,
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    ties: Mapping[str, Sequence[str]],
) -> Iterator[Problem]:
    missing = [
        name
        for name in wanted
        if name not in given
        and not name.endswith(COUNTERS)
        and not any(other in given for other in ties.get(name, ()))
    ]
    unexpected = [name for name in given if name not in wanted]
    yield from _name_problems(where, "a tensor of the module is missing", missing, unexpected)
    yield from _name_problems(where, "a tensor has no place in the module", unexpected, missing)


def _shape_problems(
    where: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> list[Problem]:
    problems = [
        Problem(
            where=f"{where}: {name}",
            what="the shape is another than the module's",
            expected=str(tuple(wanted[name].shape)),
            found=str(tuple(tensor.shape)),
            remedy="build the module at the checkpoint's widths: a factory may take the "
            "checkpoint's shapes as its one argument",
        )
        for name, tensor in given.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    return _shortened(where, problems)


def _type_problems(
    where: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> list[Problem]:
    """Floats where the module has integers, complex numbers, tensors that are not dense."""
    import torch

    problems = []
    for name, tensor in given.items():
        if name not in wanted:
            continue
        is_dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not is_dense or _kind(tensor) != _kind(wanted[name]):
            problems.append(
                Problem(
                    where=f"{where}: {name}",
                    what="the type is another than the module's",
                    expected=f"dense {wanted[name].dtype}",
                    found=f"{tensor.dtype}, {tensor.layout}, on {tensor.device.type}",
                    remedy="save the state_dict of the module that the factory builds",
                )
            )
    return _shortened(where, problems)


def _value_problems(
    where: str,
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    ties: Mapping[str, Sequence[str]],
) -> list[Problem]:
    """NaN and infinity; two values for one tensor. Only what fits is looked at."""
    import torch

    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name in wanted
        and tensor.shape == wanted[name].shape
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
    }
    problems = [
        Problem(
            where=f"{where}: {name}",
            what="the tensor holds NaN or infinity",
            expected="finite numbers",
            found=f"{int((~tensor.isfinite()).sum())} of {tensor.numel()}",
            remedy="take a checkpoint from before the training diverged",
        )
        for name, tensor in fitting.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    torn = [
        (name, other)
        for name, tensor in fitting.items()
        for other in ties.get(name, ())
        if name < other and other in fitting and not _is_same(tensor, fitting[other])
    ]
    problems += [
        Problem(
            where=f"{where}: {name}",
            what=f"the module has one tensor for it and {other}, the checkpoint has two",
            expected="equal values",
            remedy="build the module without tying them, or name the checkpoint that fits",
        )
        for name, other in torn
    ]
    return _shortened(where, problems)


def _is_same(tensor: Tensor, other: Tensor) -> bool:
    import torch

    return torch.equal(tensor.float(), other.float())


def _notes(given: Mapping[str, Tensor]) -> Iterator[str]:
    halves = Counter(str(tensor.dtype) for tensor in given.values() if str(tensor.dtype) in _HALF)
    for dtype, count in sorted(halves.items()):
        kind = dtype.removeprefix("torch.")
        yield f"{count} tensors are stored in {kind}: the float model computes in float32"


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "floats"
    return "complex numbers" if tensor.is_complex() else "integers"


def _name_problems(
    where: str, what: str, names: Sequence[str], others: Collection[str]
) -> list[Problem]:
    problems = []
    for name in names[:_SHOWN]:
        close = closest_names(name, others)
        problems.append(
            Problem(
                where=f"{where}: {shown_name(name)}",
                what=what,
                found=f"the closest is {shown_name(close[0])!r}" if close else None,
                remedy="make factory and weights those of one model",
            )
        )
    if len(names) > _SHOWN:
        rest = f"{what}; {len(names) - _SHOWN} more of this kind"
        problems.append(Problem(where=where, what=rest, remedy="see above"))
    return problems


def _shortened(where: str, problems: Sequence[Problem]) -> list[Problem]:
    """The first few, and one that counts the others."""
    shown = list(problems[:_SHOWN])
    if len(problems) > _SHOWN:
        rest = f"{problems[0].what}; {len(problems) - _SHOWN} more of this kind"
        shown.append(Problem(where=where, what=rest, remedy="see above"))
    return shown


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(shown_name, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
