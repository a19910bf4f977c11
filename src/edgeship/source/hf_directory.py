"""Hugging Face directory: `config.json` and the weights, whole or in shards by an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.element import Bits
from edgeship.source.hf_config import read_json_object
from edgeship.source.safetensors_file import SafetensorsFile, open_safetensors
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import Span, TensorEntry

WHOLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
TORCH_WHOLE: Final = "pytorch_model.bin"
_SHARD_LIMIT: Final = 1000
"""A choice: each shard stays open, and the largest checkpoints have about 200."""
_SHOWN: Final = 5


class ShardedSource:
    """A `TensorSource` over several safetensors files.

    Attributes:
        unlisted: Names of tensors that lie in a shard and not in the index; not in `entries`.
    """

    def __init__(self, shard_of: Mapping[str, SafetensorsFile], unlisted: Sequence[str]) -> None:
        self._shard_of = shard_of
        self._entries = {name: shard.entries[name] for name, shard in shard_of.items()}
        self.unlisted = tuple(unlisted)

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Every tensor that the index lists and its shard has, in the index's order."""
        return self._entries

    def read(self, name: str, span: Span) -> Bits:
        """See `TensorSource`."""
        return self._shard_of[name].read(name, span)


@contextmanager
def open_shards(index: Path) -> Iterator[ShardedSource]:
    """Open every shard of an index.

    Raises:
        ConfigurationError: The index is none; shards that are missing; tensors that the index
            lists and their shard has not: all by name, at once.
    """
    shard_names = _read_weight_map(index)
    wanted: dict[str, list[str]] = {}
    for name, shard in shard_names.items():
        wanted.setdefault(shard, []).append(name)
    missing = [shard for shard in wanted if not (index.parent / shard).is_file()]
    if missing:
        raise ConfigurationError(*_problems(index, "a shard is missing", missing))
    with ExitStack() as stack:
        shards = {
            shard: stack.enter_context(open_safetensors(index.parent / shard)) for shard in wanted
        }
        held = {shard: file.entries for shard, file in shards.items()}
        problems = [
            problem
            for shard, names in wanted.items()
            for problem in _problems(
                index.parent / shard,
                "a tensor of the index is not in its shard",
                [name for name in names if name not in held[shard]],
            )
        ]
        if problems:
            raise ConfigurationError(*problems)
        unlisted = [
            name
            for shard, entries in held.items()
            for name in entries
            if shard_names.get(name) != shard
        ]
        shard_of = {name: shards[shard] for name, shard in shard_names.items()}
        yield ShardedSource(shard_of, unlisted)


def _read_weight_map(index: Path) -> dict[str, str]:
    """Shard by tensor; a shard is a file beside the index, and nothing else."""
    weight_map = read_json_object(index).get("weight_map")
    found = None
    if not isinstance(weight_map, dict) or not weight_map:
        found = "no weight_map"
    elif len(set(map(str, weight_map.values()))) > _SHARD_LIMIT:
        found = f"more than {_SHARD_LIMIT} shards"
    else:
        outside = [shard for shard in weight_map.values() if not _is_plain(shard)]
        if outside:
            found = shown_name(str(outside[0]))
    if found is not None:
        problem = Problem(
            where=str(index),
            what="the index cannot be used",
            expected="a weight_map from tensors to .safetensors files beside it",
            found=found,
            remedy="fetch or save the model again",
        )
        raise ConfigurationError(problem)
    assert isinstance(weight_map, dict)  # the checks above
    return weight_map


def _is_plain(shard: object) -> bool:
    """Whether it is the name of a safetensors file, without a way out of the directory."""
    return (
        isinstance(shard, str)
        and shard.isprintable()
        and Path(shard).name == shard
        and "\\" not in shard
        and Path(shard).suffix == ".safetensors"
        and len(shard) < 256
    )


def _problems(where: Path, what: str, names: Iterable[str]) -> list[Problem]:
    """One problem a name, and one for all beyond the first few."""
    known = list(names)
    remedy = "fetch the missing files, or save the model again"
    problems = [
        Problem(where=f"{where}: {shown_name(name)}", what=what, remedy=remedy)
        for name in known[:_SHOWN]
    ]
    if len(known) > _SHOWN:
        rest = f"{what}; {len(known) - _SHOWN} more of this kind"
        problems.append(Problem(where=str(where), what=rest, remedy=remedy))
    return problems
