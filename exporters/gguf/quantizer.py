"""Quantizer: llama.cpp's own, from one GGUF file to another, where there is no way in one pass."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.file_types import FileType
from edgeship.exporters.gguf.library import Floats
from edgeship.runtimes.llama_library import load_library
from edgeship.story import Progress, ignore_progress

_COUNTED: Final = re.compile(r"\[ *(\d+)/ *(\d+)\]")
"""How each tensor's line begins. Source: src/llama-quant.cpp, `llama_model_quantize_impl`."""


def quantize_file(
    source: Path,
    destination: Path,
    file_type: FileType,
    *,
    threads: int,
    importance: Mapping[str, Floats] | None = None,
    progress: Progress = ignore_progress,
) -> None:
    """Quantize a float file as llama-quantize does.

    Args:
        source: The float file.
        destination: Of the new one.
        file_type: Of which the new one is.
        threads: At least 1.
        importance: float32[columns] by tensor; names of no tensor are ignored.
        progress: Told (done, all) in tensors.

    Raises:
        ExportFailed: llama.cpp refuses the file or cannot write, with its words.
        RequirementMissing: llama-cpp-python is not installed.
    """
    library, log = load_library()
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = file_type.number, threads
    kept = [np.ascontiguousarray(values, np.float32) for values in (importance or {}).values()]
    if importance:
        parameters.imatrix = _entries(library, list(importance), kept)

    def heard(level: int, line: bytes, _user_data: object) -> None:
        said = line.decode(errors="replace")
        log.add(level, said)
        counted = _COUNTED.match(said)
        if counted:
            progress(int(counted[1]), int(counted[2]))

    callback = library.llama_log_callback(heard)  # which llama.cpp knows by its address alone
    log.clear()
    library.llama_log_set(callback, None)
    try:
        paths = (str(path).encode() for path in (source, destination))
        status = library.llama_model_quantize(*paths, ctypes.byref(parameters))
    finally:
        load_library()  # takes its own callback again
    if status != 0:
        problem = Problem(
            where=str(source),
            what=f"llama.cpp cannot quantize the file to {file_type.name}",
            found=(log.last_error() or f"status {status}")[:300],
            remedy="choose another precision, or make room on the disk",
        )
        raise ExportFailed(problem)


def _entries(library: Any, names: list[str], values: list[Floats]) -> Any:  # noqa: ANN401 - ctypes
    """An array of the library's own, ended by an entry without a name."""
    entries = (library.llama_model_imatrix_data * (len(names) + 1))()
    for entry, name, numbers in zip(entries, names, values, strict=False):
        entry.name = name.encode()
        entry.data = numbers.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = numbers.size
    return entries
