"""Tensor names: what they say of a tensor's place and purpose."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_SHOWN_CHARACTERS: Final = 100
_INDEX: Final = re.compile(r"(?P<stem>.*_)?(?P<index>\d{1,6})")
"""`3` as in torch.nn.Sequential, `encoder_layer_3` as in torchvision's VisionTransformer."""
_STATE: Final = ("running_mean", "running_var", "num_batches_tracked")
"""What torch.nn.modules.batchnorm keeps beside its parameters."""
_BUFFERS: Final = (*_STATE, "position_ids", "token_type_ids", "inv_freq", "masked_bias")
_QUANTIZER: Final = (
    "scales",
    "zero_point",
    "zero_points",
    "qzeros",
    "g_idx",
    "weight_scale",
    "weight_scale_inv",
    "weight_zero_point",
    "input_scale",
    "SCB",
    "absmax",
    "quant_map",
    "quant_state",
    "nested_absmax",
    "nested_quant_map",
    "fake_quant_enabled",
    "observer_enabled",
)
"""Last parts of names that quantizers write: torch.ao, GPTQ, AWQ, compressed-tensors,
bitsandbytes. `scale` alone is none: normalisations learn one."""
_QUANTIZER_PLACES: Final = ("activation_post_process", "weight_fake_quant", "quant_state")
ORIGINAL: Final = "_orig"
MASK: Final = "_mask"
"""torch.nn.utils.prune (BasePruningMethod.apply) stores `weight_orig` and `weight_mask`."""


@dataclass(frozen=True, kw_only=True)
class BlockGroup:
    """Indexed siblings: `layer1.0`, `layer1.1`, ...

    Attributes:
        prefix: What stands before the index, like `layer1.` or `encoder_layer_`; may be empty.
        indices: Ascending.
        is_uniform: Whether at least two of them have tensors of the same names.
    """

    prefix: str
    indices: tuple[int, ...]
    is_uniform: bool

    @property
    def shown(self) -> str:
        """`layer1.0-2`, or `net.0,2,5` where indices are left out."""
        first, last = self.indices[0], self.indices[-1]
        if len(self.indices) == 1:
            return f"{self.prefix}{first}"
        if last - first + 1 == len(self.indices):
            return f"{self.prefix}{first}-{last}"
        return f"{self.prefix}{','.join(map(str, self.indices))}"


def shown_name(name: str) -> str:
    """The name for people: escaped where it would move the cursor, cut where it has no end."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def names_a_parameter(name: str) -> bool:
    """Whether the name is that of no counter, running statistic, mask or quantizer state."""
    last = name.rpartition(".")[2]
    return not (last in _BUFFERS or last.endswith(MASK) or is_quantizer_state(name))


def is_quantizer_state(name: str) -> bool:
    """Whether a quantizer wrote it beside its weight."""
    parts = name.split(".")
    return parts[-1] in _QUANTIZER or any(part in _QUANTIZER_PLACES for part in parts)


def is_embedding(name: str) -> bool:
    """Whether it is a table that rows are looked up in, by the names that are in use."""
    parts = name.split(".")
    return parts[-1] in ("weight", "word_embeddings") and any(
        "embed" in part or part in ("wte", "wpe") for part in parts
    )


def split_at_index(name: str) -> tuple[str, int, str] | None:
    """Prefix, index and rest of a name with an indexed part, the outermost one; None without."""
    before = ""
    parts = name.split(".")
    for position, part in enumerate(parts[:-1]):
        match = _INDEX.fullmatch(part)
        if match is not None:
            rest = ".".join(parts[position + 1 :])
            return before + (match["stem"] or ""), int(match["index"]), rest
        before += f"{part}."
    return None


def role_of(name: str) -> str:
    """The name with `*` for the index of its block: equal for siblings."""
    split = split_at_index(name)
    return name if split is None else f"{split[0]}*.{split[2]}"


def block_groups(names: Iterable[str]) -> tuple[BlockGroup, ...]:
    """Every group of indexed siblings that hold modules, in the order of the names."""
    members: defaultdict[str, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        split = split_at_index(name)
        if split is not None:
            prefix, index, rest = split
            members[prefix][index].add(rest)
    return tuple(
        BlockGroup(
            prefix=prefix,
            indices=tuple(sorted(found)),
            is_uniform=_repeats([frozenset(rest) for rest in found.values()]),
        )
        for prefix, found in members.items()
    )


def _repeats(contents: list[frozenset[str]]) -> bool:
    """Whether a block with modules in it appears twice: bare layers of a Sequential do not count.

    Half of the names in common are enough: a residual block may have a shortcut or not.
    """
    modules = [content for content in contents if any("." in rest for rest in content)]
    return any(
        2 * len(one & other) >= max(len(one), len(other))
        for position, one in enumerate(modules)
        for other in modules[position + 1 : position + 3]
    )
