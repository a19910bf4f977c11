"""Survey: what is in a checkpoint, found in one pass and without loading it.

Memory is the header, one block of 4 MiB, and a few numbers a tensor; torch files are the
exception, since torch reads them whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.architecture import Architecture, find_architecture, is_weight
from edgeship.source.element import ElementType
from edgeship.source.lineage import Lineage, count_parameters, distillation_look, find_lineage
from edgeship.source.looks import Look, find_looks
from edgeship.source.sparsity import leftovers_of
from edgeship.source.stored_checkpoint import StoredCheckpoint, StoredKind, open_checkpoint
from edgeship.source.tensor_facts import TensorFacts, scan_tensor
from edgeship.source.tensor_name import shown_name

_VARIANCE: Final = ".running_var"
"""torch.nn.BatchNorm is told by it: it alone keeps a running variance."""
_SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True)
class BatchNormFacts:
    """All BatchNorm layers together.

    Attributes:
        dead: Channels whose gamma is at most `tensor_facts.NEAR_ZERO`: their output is constant.
        dead_in: Names of the layers that have dead channels.
    """

    layers: int
    channels: int
    dead: int
    dead_in: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What `survey_checkpoint` found.

    Attributes:
        parameters: Elements that training changes; tensors of the same bytes count once.
        buffers: Elements of the others: running statistics, counters, masks, scales.
        size_bytes: Of all tensors, as stored.
        tied: Groups of names whose tensors have the same shape, type and bytes.
        leftovers: Weights that torch.nn.utils.prune split into `_orig` and `_mask`.
        findings: What is odd, a sentence each.
    """

    path: str
    kind: StoredKind
    parameters: int
    buffers: int
    size_bytes: int
    bytes_by_type: Mapping[ElementType, int]
    tensors: tuple[TensorFacts, ...]
    tied: tuple[tuple[str, ...], ...]
    leftovers: tuple[str, ...]
    batch_norm: BatchNormFacts | None
    architecture: Architecture
    looks: tuple[Look, ...]
    findings: tuple[str, ...]
    lineage: Lineage | None

    @property
    def unique_tensors(self) -> tuple[TensorFacts, ...]:
        """All tensors, of tied ones the first."""
        return tuple(_without_copies(self.tensors, self.tied))

    def to_json(self) -> dict[str, object]:
        """Every field, for machines."""
        return {
            "path": self.path,
            "kind": str(self.kind),
            "parameters": self.parameters,
            "buffers": self.buffers,
            "bytes": self.size_bytes,
            "bytes_by_dtype": {str(key): value for key, value in self.bytes_by_type.items()},
            "architecture": self.architecture.to_json(),
            "looks": [look.to_json() for look in self.looks],
            "batch_norm": None
            if self.batch_norm is None
            else {
                "layers": self.batch_norm.layers,
                "channels": self.batch_norm.channels,
                "dead_channels": self.batch_norm.dead,
                "dead_in": list(self.batch_norm.dead_in),
            },
            "tied": [list(group) for group in self.tied],
            "reparametrised": list(self.leftovers),
            "findings": list(self.findings),
            "lineage": None if self.lineage is None else self.lineage.to_json(),
            "tensors": [facts.to_json() for facts in self.tensors],
        }


def survey_checkpoint(
    path: Path,
    *,
    teacher: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Survey a .safetensors file, a torch file or a Hugging Face directory.

    Args:
        path: The checkpoint; every tensor of it is read once.
        teacher: Another to compare it with, of which headers and samples are read.
        on_progress: Called with the bytes read and the bytes in all, after each tensor.

    Raises:
        ConfigurationError: See `open_checkpoint`; no tensors; a file that changes meanwhile.
        IntegrityRefused: A torch file that wants to run code.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(open_checkpoint(path))
        _require_tensors(opened)
        lineage = None
        if teacher is not None:
            other = stack.enter_context(open_checkpoint(teacher))
            _require_tensors(other)
            lineage = find_lineage(opened, other)
        facts = tuple(_scan(opened, on_progress))
    return _survey(opened, facts, lineage)


def _scan(
    opened: StoredCheckpoint, on_progress: Callable[[int, int], None] | None
) -> Iterator[TensorFacts]:
    entries = opened.source.entries
    total = sum(entry.size_bytes for entry in entries.values())
    done = 0
    for name, entry in entries.items():
        yield scan_tensor(opened.source, name)
        done += entry.size_bytes
        if on_progress is not None:
            on_progress(done, total)


def _survey(
    opened: StoredCheckpoint, facts: tuple[TensorFacts, ...], lineage: Lineage | None
) -> Survey:
    entries = opened.source.entries
    architecture = find_architecture(entries, opened.config)
    tied = tuple(_tied(facts))
    unique = [item.entry for item in _without_copies(facts, tied)]
    parameters = count_parameters(unique)
    by_type: Counter[ElementType] = Counter()
    for entry in entries.values():
        by_type[entry.element] += entry.size_bytes
    distillation = None if lineage is None else distillation_look(lineage)
    return Survey(
        path=str(opened.path),
        kind=opened.kind,
        parameters=parameters,
        buffers=sum(entry.elements for entry in unique) - parameters,
        size_bytes=by_type.total(),
        bytes_by_type=dict(by_type.most_common()),
        tensors=facts,
        tied=tied,
        leftovers=leftovers_of(entries),
        batch_norm=_batch_norm(facts),
        architecture=architecture,
        looks=find_looks(facts, architecture, opened.config, distillation=distillation),
        findings=(*opened.findings, *architecture.disagreements, *_non_finite(facts)),
        lineage=lineage,
    )


def _tied(facts: Iterable[TensorFacts]) -> Iterator[tuple[str, ...]]:
    """Groups of equal weights; vectors, and what is all zero, are equal without being tied."""
    groups: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for item in facts:
        if is_weight(item.entry) and item.absmax:
            key = (item.sha256, item.entry.element, item.entry.shape)
            groups[key].append(item.entry.name)
    return (tuple(names) for names in groups.values() if len(names) > 1)


def _without_copies(
    facts: Iterable[TensorFacts], tied: Iterable[Sequence[str]]
) -> Iterator[TensorFacts]:
    copies = {name for group in tied for name in group[1:]}
    return (item for item in facts if item.entry.name not in copies)


def _batch_norm(facts: Sequence[TensorFacts]) -> BatchNormFacts | None:
    by_name = {item.entry.name: item for item in facts}
    names = [name.removesuffix(_VARIANCE) for name in by_name if name.endswith(_VARIANCE)]
    if not names:
        return None
    gammas = {name: by_name.get(f"{name}.weight") for name in names}
    dead = {name: gamma.near_zero or 0 for name, gamma in gammas.items() if gamma is not None}
    return BatchNormFacts(
        layers=len(names),
        channels=sum(by_name[f"{name}{_VARIANCE}"].entry.elements for name in names),
        dead=sum(dead.values()),
        dead_in=tuple(name for name, count in dead.items() if count),
    )


def _non_finite(facts: Iterable[TensorFacts]) -> Iterator[str]:
    bad = [item for item in facts if item.non_finite]
    for item in bad[:_SHOWN]:
        name, count = shown_name(item.entry.name), item.entry.elements
        yield f"{item.non_finite} of {count} elements of {name} are NaN or infinite"
    if len(bad) > _SHOWN:
        yield f"{len(bad) - _SHOWN} more tensors hold NaN or infinity"


def _require_tensors(opened: StoredCheckpoint) -> None:
    if not any(entry.elements for entry in opened.source.entries.values()):
        problem = Problem(
            where=str(opened.path),
            what="the checkpoint has no tensors, or none with elements",
            remedy="save model.state_dict()",
        )
        raise ConfigurationError(problem)
