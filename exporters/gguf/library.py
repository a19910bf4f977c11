"""Library: ggml's own kernels, called in the library that llama-cpp-python installs.

Only `libggml-base` is loaded, by ctypes: llama_cpp itself is not imported, so no model code, no
backend and no thread pool comes with it. A call releases the GIL while it runs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeship.errors import Problem, RequirementMissing
from edgeship.exporters.gguf.kinds import Kind
from edgeship.source.element import ElementType

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_PACKAGE: Final = "llama_cpp"
_FILES: Final = {"darwin": "libggml-base.dylib", "win32": "ggml-base.dll"}
_REMEDY: Final = 'install it: pip install "edgeship[gguf]"'
_POINTER: Final = ctypes.c_void_p
_COUNT: Final = ctypes.c_int64


class Kernel(Protocol):
    """Writes the blocks of whole rows, byte for byte as ggml's kernel would."""

    def __call__(self, rows: Floats, out: Bytes, /) -> None:
        """Take float32[n, columns], fill uint8[n, row bytes]; both contiguous, `rows` unchanged."""


class Ggml:
    """Quantizes and widens rows; one instance serves any number of threads.

    Attributes:
        fast: Kernels that are used instead of ggml's where there is no importance.
    """

    def __init__(self, fast: Mapping[Kind, Kernel] | None = None) -> None:
        """Load the library once for the process.

        Raises:
            RequirementMissing: llama-cpp-python is not installed, or has no ggml.
        """
        self._library = _library()
        self.fast: Mapping[Kind, Kernel] = dict(fast or {})

    def quantize(self, kind: Kind, rows: Floats, importance: Floats | None, out: Bytes) -> None:
        """Store `rows` as `kind`, to nearest or by the search that the kind has.

        Values that are not finite give blocks without meaning, as they do in llama.cpp: see
        `is_valid`. `rows` are left unchanged.

        Args:
            kind: The storage type; F32, F16 and BF16 are conversions, to nearest even.
            rows: float32[n, columns], C-contiguous; columns a multiple of `kind.block`.
            importance: float32[columns], >= 0: how much an error in that column matters, the mean
                of the squared inputs; kinds without a search ignore it.
            out: uint8 of exactly n * kind.row_bytes(columns) bytes, contiguous.

        Raises:
            ValueError: Shapes, types or sizes are not as above: the C code would not notice.
        """
        count, columns = _checked(kind, rows, importance, out)
        if count == 0:
            return
        kernel = self.fast.get(kind) if importance is None else None
        if kernel is not None:
            kernel(rows, out.reshape(count, -1))
            return
        weights = None if importance is None else importance.ctypes.data
        written = self._library.ggml_quantize_chunk(
            kind.number, rows.ctypes.data, out.ctypes.data, 0, count, columns, weights
        )
        if written != out.size:
            message = f"ggml wrote {written} bytes of {kind}, not {out.size}"
            raise ValueError(message)

    def widen(self, element: ElementType, raw: Bytes, out: Floats) -> None:
        """Make float32 of stored floats, exactly; `raw` are their bytes, `out` has their count.

        Raises:
            ValueError: `element` is not F32, F16 or BF16, or the sizes do not match.
        """
        _check_contiguous("raw", raw, np.uint8)
        _check_contiguous("out", out, np.float32)
        if raw.size != out.size * element.item_bytes:
            message = f"{raw.size} bytes are not {out.size} weights of {element}"
            raise ValueError(message)
        match element:
            case ElementType.BF16:
                self._library.ggml_bf16_to_fp32_row(raw.ctypes.data, out.ctypes.data, out.size)
            case ElementType.F16:
                self._library.ggml_fp16_to_fp32_row(raw.ctypes.data, out.ctypes.data, out.size)
            case ElementType.F32:
                out.reshape(-1).view(np.uint8)[:] = raw.reshape(-1)
            case _:
                message = f"weights of {element} cannot be widened to float32"
                raise ValueError(message)

    def is_valid(self, kind: Kind, raw: Bytes) -> bool:
        """Whether the blocks hold finite scales only: ggml's own check of a tensor's bytes.

        A False comes with a line of ggml's on stderr.
        """
        _check_contiguous("raw", raw, np.uint8)
        return bool(self._library.ggml_validate_row_data(kind.number, raw.ctypes.data, raw.size))

    def version(self) -> str:
        """The version that the library names, such as 0.25.3."""
        return str(self._library.ggml_version().decode())


def library_path() -> Path:
    """Where the installed ggml is.

    Raises:
        RequirementMissing: llama-cpp-python is not installed, or has no ggml.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        problem = Problem(where="gguf", what="llama-cpp-python is not installed", remedy=_REMEDY)
        raise RequirementMissing(problem)
    path = Path(spec.origin).parent / "lib" / _FILES.get(sys.platform, "libggml-base.so")
    if not path.is_file():
        raise RequirementMissing(_unusable(f"no {path.name}"))
    return path


@cache
def _library() -> ctypes.CDLL:
    """The library with the types of what is called; NULL is no valid `rows`, `raw` or `out`."""
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
        _declare(library)
    except (OSError, AttributeError) as error:
        raise RequirementMissing(_unusable(str(error))) from error
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Source: ggml.h, `ggml_quantize_chunk` and its neighbours."""
    chunk = library.ggml_quantize_chunk
    chunk.argtypes = [ctypes.c_int, _POINTER, _POINTER, _COUNT, _COUNT, _COUNT, _POINTER]
    chunk.restype = ctypes.c_size_t
    for widen in (library.ggml_bf16_to_fp32_row, library.ggml_fp16_to_fp32_row):
        widen.argtypes = [_POINTER, _POINTER, _COUNT]
        widen.restype = None
    library.ggml_validate_row_data.argtypes = [ctypes.c_int, _POINTER, ctypes.c_size_t]
    library.ggml_validate_row_data.restype = ctypes.c_bool
    library.ggml_version.argtypes = []
    library.ggml_version.restype = ctypes.c_char_p


def _checked(kind: Kind, rows: Floats, importance: Floats | None, out: Bytes) -> tuple[int, int]:
    """Rows and columns, of arrays that the C code can take as they are."""
    _check_contiguous("rows", rows, np.float32)
    _check_contiguous("out", out, np.uint8)
    if rows.ndim != 2:
        message = f"rows have {rows.ndim} axes, not 2"
        raise ValueError(message)
    count, columns = rows.shape
    if out.size != count * kind.row_bytes(columns):
        message = f"out has {out.size} bytes for {count} rows of {kind.row_bytes(columns)}"
        raise ValueError(message)
    if importance is not None:
        _check_contiguous("importance", importance, np.float32)
        if importance.shape != (columns,):
            message = f"importance has shape {importance.shape}, not ({columns},)"
            raise ValueError(message)
    return count, columns


def _check_contiguous(name: str, array: NDArray[np.generic], dtype: type[np.generic]) -> None:
    if array.dtype != dtype or not array.flags.c_contiguous:
        message = f"{name} must be C-contiguous {dtype.__name__}, not {array.dtype}"
        raise ValueError(message)


def _unusable(found: str) -> Problem:
    return Problem(
        where="gguf",
        what="the installed llama-cpp-python has no ggml that can be used",
        expected="the library of llama-cpp-python 0.3.36",
        found=found,
        remedy=_REMEDY,
    )
