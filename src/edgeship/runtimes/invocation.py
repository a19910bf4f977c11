"""Invocation: a .tflite file in LiteRT with made-up inputs, to be run for its time alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.errors import ExportFailed
from edgeship.runtimes.litert import LiteRtRuntime, refused, without_banner

if TYPE_CHECKING:
    import numpy as np

_SEED: Final = 0


def open_invocation(content: bytes, *, name: str) -> Callable[[], None]:
    """Load a file on one thread, fill its inputs, run it once; what runs it again.

    A run is the runtime's own work: nothing is copied in or out. Inputs are random numbers, in int8
    and uint8 over the whole range; those of wider integers, which may be indices and shapes, are 0.

    Args:
        content: The file's bytes.
        name: Of the file, for errors.

    Raises:
        ExportFailed: LiteRT does not load or does not run it.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    generator = np.random.default_rng(_SEED)
    try:
        with without_banner():
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            values = _values(generator, detail["shape"], np.dtype(detail["dtype"]))
            interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:  # it knows no others
        raise _failed(name, error) from error
    invoke: Callable[[], None] = interpreter.invoke
    return invoke


def _values(generator: Any, shape: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:  # noqa: ANN401 - numpy is imported late
    import numpy as np

    sizes = tuple(int(size) for size in shape)
    values: Any = np.zeros(sizes)
    if dtype.kind == "f":
        values = generator.standard_normal(sizes)
    elif dtype.itemsize == 1 and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = generator.integers(limits.min, limits.max, sizes, endpoint=True)
    return np.asarray(values, dtype)


def _failed(name: str, error: Exception) -> ExportFailed:
    return refused(Path(name), f"LiteRT {LiteRtRuntime().version()}", str(error))
