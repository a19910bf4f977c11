"""Stored checkpoint: a file or directory of weights, opened to be surveyed and not loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from edgeship.errors import ConfigurationError, Problem
from edgeship.source.checkpoint import SAFETENSORS, TORCH
from edgeship.source.hf_config import CONFIG, HfConfig, read_hf_config
from edgeship.source.hf_directory import INDEX, TORCH_WHOLE, WHOLE, open_shards
from edgeship.source.safetensors_file import open_safetensors
from edgeship.source.tensor_name import shown_name
from edgeship.source.tensor_source import TensorSource

_UNLISTED_SHOWN: Final = 5


class StoredKind(StrEnum):
    """What the user named."""

    SAFETENSORS = "safetensors file"
    TORCH = "torch file"
    HUGGING_FACE = "Hugging Face directory"


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """An open checkpoint.

    Attributes:
        config: What `config.json` says; None where the checkpoint is one file.
        findings: What was odd about its files, a sentence each.
    """

    path: Path
    kind: StoredKind
    source: TensorSource
    config: HfConfig | None
    findings: tuple[str, ...] = ()


@contextmanager
def open_checkpoint(path: Path) -> Iterator[StoredCheckpoint]:
    """Open a .safetensors file, a torch file, or a Hugging Face directory.

    Torch is imported for torch files only, which are read whole; of the others only the headers
    are read here.

    Raises:
        ConfigurationError: Nothing there, another kind of file, a damaged one.
        IntegrityRefused: A torch file that wants to run code.
    """
    if path.is_dir():
        with _open_directory(path) as opened:
            yield opened
        return
    beside = path.parent / CONFIG
    findings: tuple[str, ...] = ()
    if path.name in (WHOLE, TORCH_WHOLE) and beside.is_file():
        findings = (f"{CONFIG} lies beside it: name the directory, and it will be read too",)
    with _open_file(path) as (kind, source):
        yield StoredCheckpoint(path=path, kind=kind, source=source, config=None, findings=findings)


@contextmanager
def _open_directory(path: Path) -> Iterator[StoredCheckpoint]:
    config = read_hf_config(path / CONFIG) if (path / CONFIG).is_file() else None
    findings = [] if config is not None else [f"the directory has no {CONFIG}"]
    whole, index, torch_whole = path / WHOLE, path / INDEX, path / TORCH_WHOLE
    kind = StoredKind.HUGGING_FACE
    if whole.exists():
        if index.exists():
            findings.append(f"both {WHOLE} and {INDEX} are there: the first was read")
        with open_safetensors(whole) as file:
            yield _opened(path, kind, file, config, findings)
    elif index.exists():
        with open_shards(index) as source:
            if source.unlisted:
                shown = ", ".join(map(shown_name, source.unlisted[:_UNLISTED_SHOWN]))
                more = len(source.unlisted) - _UNLISTED_SHOWN
                rest = f" and {more} more" if more > 0 else ""
                findings.append(f"in a shard, but not listed in {INDEX}: {shown}{rest}")
            yield _opened(path, kind, source, config, findings)
    elif torch_whole.exists():
        with _open_file(torch_whole) as (_, torch_source):
            yield _opened(path, kind, torch_source, config, findings)
    else:
        problem = Problem(
            where=str(path),
            what="the directory holds no weights",
            expected=f"{WHOLE}, {INDEX} with its shards, or {TORCH_WHOLE}",
            remedy="name a directory that transformers wrote, or a checkpoint file",
        )
        raise ConfigurationError(problem)


def _opened(
    path: Path,
    kind: StoredKind,
    source: TensorSource,
    config: HfConfig | None,
    findings: list[str],
) -> StoredCheckpoint:
    return StoredCheckpoint(
        path=path, kind=kind, source=source, config=config, findings=tuple(findings)
    )


@contextmanager
def _open_file(path: Path) -> Iterator[tuple[StoredKind, TensorSource]]:
    if path.suffix in SAFETENSORS:
        with open_safetensors(path) as file:
            yield StoredKind.SAFETENSORS, file
    elif path.suffix in TORCH and path.exists():
        from edgeship.source.torch_source import TorchSource

        yield StoredKind.TORCH, TorchSource(path)
    else:
        is_there = path.exists()
        problem = Problem(
            where=str(path),
            what="this kind of file is not known" if is_there else "no such file or directory",
            expected=", ".join((*SAFETENSORS, *TORCH, "or a Hugging Face directory")),
            found=path.suffix or "a name without a suffix" if is_there else None,
            remedy="name a checkpoint that exists",
        )
        raise ConfigurationError(problem)
