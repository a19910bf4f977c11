"""Stream: from the checkpoint to the finished file in one pass, a few rows at a time.

The layout is known before any weight is read, so threads take blocks of rows as they are free and
write them to where they belong: no intermediate file, and memory for one block in each thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgeship.errors import ConfigurationError, Problem
from edgeship.exporters.gguf.blocks import BlockEncoder, RowBlock, row_blocks
from edgeship.exporters.gguf.blueprint import Metadata, TensorPlan
from edgeship.exporters.gguf.header import encode_header
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.layout import Layout, lay_out
from edgeship.exporters.gguf.library import Floats, Ggml
from edgeship.exporters.gguf.reservation import ReservedFile, reserved_file
from edgeship.exporters.gguf.shards import check_tensors
from edgeship.source.tensor_source import TensorSource

Progress = Callable[[int, int], None]
"""Told (done, all) in weights, by the calling thread only, a few times a second."""

_REPORT_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file will hold.

    Attributes:
        metadata: All keys in the order of the file.
        tensors: In any order; the file has llama-quantize's.
        kinds: By the tensor's name.
    """

    metadata: Metadata
    tensors: tuple[TensorPlan, ...]
    kinds: Mapping[str, Kind]


def write_gguf(
    source: TensorSource,
    contents: Contents,
    destination: Path,
    *,
    threads: int,
    importance: Mapping[str, Floats] | None = None,
    ggml: Ggml | None = None,
    on_progress: Progress | None = None,
) -> int:
    """Write the file; it appears whole or not at all, and replaces the one before.

    Args:
        source: The open checkpoint.
        contents: What the file holds.
        destination: Path of the file; its directory is made if absent.
        threads: Number of threads that quantize, at least 1.
        importance: float32[columns] by tensor: see `Ggml.quantize`; tensors that are not named
            are quantized without. Names of no tensor are ignored.
        ggml: The kernels; by default ggml's own.
        on_progress: See `Progress`; at the end it is told (all, all).

    Returns:
        The size of the file in bytes.

    Raises:
        ConfigurationError: The checkpoint is damaged or does not hold the tensors as planned;
            importance of another width, or not finite.
        ExportFailed: A weight is no finite number, a tensor does not fit its kind, the disk is
            full.
    """
    check_tensors(source.entries, contents.tensors)
    layout = lay_out(contents.tensors, contents.kinds)
    _check_importance(contents.tensors, importance or {})
    header = encode_header(contents.metadata, layout)
    size_bytes = len(header) + layout.data_bytes
    kernels = ggml or Ggml()
    with reserved_file(destination, size_bytes) as file:
        file.write(memoryview(header), 0)
        stream = _Stream(layout, file, len(header))
        encoders = [BlockEncoder(source, kernels, importance or {}) for _ in range(threads)]
        stream.run(encoders, on_progress or (lambda _done, _all: None))
    return size_bytes


class _Stream:
    """The blocks that are left, handed to whichever thread is free."""

    def __init__(self, layout: Layout, file: ReservedFile, data_start: int) -> None:
        self._blocks: Iterator[RowBlock] = row_blocks(layout.placements)
        self._lock = threading.Lock()
        self._stopped = False
        self._done = 0
        self._all = sum(placement.plan.elements for placement in layout.placements)
        self._file = file
        self._data_start = data_start

    def run(self, encoders: list[BlockEncoder], on_progress: Progress) -> None:
        """Write all blocks; the first error of any thread stops the others."""
        with ThreadPoolExecutor(len(encoders), thread_name_prefix="gguf") as pool:
            try:
                futures = [pool.submit(self._work, encoder) for encoder in encoders]
                self._wait(futures, on_progress)
            finally:  # also an interrupt, or an error of `on_progress`
                self._stopped = True

    def _wait(self, futures: list[Future[None]], on_progress: Progress) -> None:
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=_REPORT_S, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            on_progress(self._done, self._all)

    def _work(self, encoder: BlockEncoder) -> None:
        """Until nothing is left; what pads the tensors is what the file is made of, zeros."""
        weights = 0
        while (block := self._next(weights)) is not None:
            raw = encoder.encode(block)
            self._file.write(raw.data, self._data_start + block.offset)
            weights = block.weights

    def _next(self, weights_done: int) -> RowBlock | None:
        with self._lock:
            self._done += weights_done
            return None if self._stopped else next(self._blocks, None)


def _check_importance(tensors: tuple[TensorPlan, ...], importance: Mapping[str, Floats]) -> None:
    """Source: src/llama-quant.cpp, `llama_model_quantize_impl`, which refuses both too."""
    problems = [
        Problem(
            where=f"importance of {plan.name}",
            what="the importance matrix does not belong to this model",
            expected=f"{plan.columns} finite numbers",
            found=f"{values.size}" if np.isfinite(values).all() else "a number that is not finite",
            remedy="make it again with this checkpoint",
        )
        for plan in tensors
        if (values := importance.get(plan.name)) is not None
        and (values.shape != (plan.columns,) or not np.isfinite(values).all())
    ]
    if problems:
        raise ConfigurationError(*problems)
