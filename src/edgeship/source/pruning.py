"""Pruning: weights that torch stores in parts, put together again as it does when it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from edgeship.errors import Problem
from edgeship.source.tensor_name import MASK, ORIGINAL, shown_name

if TYPE_CHECKING:
    from torch import Tensor

_PARAMETRIZED: Final = ".parametrizations."
"""torch.nn.utils.parametrize keeps `parametrizations.<name>.original`, or original0, original1."""
_NORM_PARTS: Final = ("_g", "_v")
"""torch.nn.utils.weight_norm keeps `weight_g` and `weight_v`."""
_SHOWN: Final = 5


def fold_pruning(
    tensors: Mapping[str, Tensor], own: Collection[str] = ()
) -> tuple[dict[str, Tensor], int]:
    """Fold each `name_orig` and `name_mask` into `name`, and count them.

    Source: torch.nn.utils.prune, BasePruningMethod.apply_mask: `mask.to(orig.dtype) * orig`. A pair
    stays as it is where `own`, the module's names, has it, or where shapes or names do not fit.
    """
    import torch

    folded: dict[str, Tensor] = {}
    masks = set()
    for name, tensor in tensors.items():
        stem = name.removesuffix(ORIGINAL)
        mask = tensors.get(f"{stem}{MASK}")
        if stem == name or name in own or stem in tensors or mask is None or not _fit(tensor, mask):
            folded[name] = tensor
        else:
            folded[stem] = torch.mul(mask.to(tensor.dtype), tensor)
            masks.add(f"{stem}{MASK}")
    return {name: item for name, item in folded.items() if name not in masks}, len(masks)


def parametrization_problems(
    where: str, given: Collection[str], own: Collection[str]
) -> list[Problem]:
    """One problem for each kind of parametrization that the module does not have itself."""
    parametrized = [name for name in given if _PARAMETRIZED in name and name not in own]
    stems = {name.removesuffix("_g") for name in given if name.endswith("_g")}
    norms = [
        f"{stem}{part}"
        for stem in sorted(stems)
        for part in _NORM_PARTS
        if f"{stem}_v" in given and stem in own and f"{stem}_v" not in own
    ]
    advice = (
        (parametrized, "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"),
        (norms, "torch.nn.utils.remove_weight_norm(layer)"),
    )
    return [
        Problem(
            where=where,
            what=f"{len(names)} tensors are parts of parametrized weights, "
            "which the file alone does not tell how to put together",
            expected="the weights themselves",
            found=", ".join(map(shown_name, names[:_SHOWN])) + (", ..." if names[_SHOWN:] else ""),
            remedy=f"call {call} on each layer and save again, or let the factory register the "
            "same parametrization",
        )
        for names, call in advice
        if names
    ]


def _fit(tensor: Tensor, mask: Tensor) -> bool:
    is_dense = not (tensor.is_sparse or mask.is_sparse or mask.is_quantized)
    return tensor.is_floating_point() and is_dense and mask.shape == tensor.shape
