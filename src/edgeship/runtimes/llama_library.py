"""llama.cpp through ctypes: its library, its log, one model and one context at a time."""

from __future__ import annotations

import ctypes
import functools
import re
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgeship.errors import ExportFailed, Problem, RequirementMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

_ERROR: Final = 4
_CONTINUED: Final = 5
"""GGML_LOG_LEVEL_ERROR and _CONT, ggml.h."""
_KEPT_LINES: Final = 4096
"""A choice: loading a model of 80 layers writes about 1500."""
_MIB: Final = 1 << 20
_BUFFER: Final = re.compile(
    r" (?P<kind>model|KV|RS|compute|output) buffer size = +(?P<size>[\d.]+) MiB"
)
"""llama-model.cpp, llama-kv-cache.cpp, llama-memory-recurrent.cpp, llama-context.cpp."""
_SAYS_LITTLE: Final = re.compile(
    r"failed to (load model|create context|initialize batch)$|failed to decode, ret = -?\d+$"
)
"""What follows the line that has the cause."""


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """What llama.cpp says it holds, in bytes that it rounds to 0.01 MiB.

    Attributes:
        weights: The file as it is mapped, and copies of tensors that were repacked for the CPU.
        cache: Keys and values of the whole context.
        compute: Of the largest graph.
        output: Logits and embeddings that can be read.
    """

    weights: int
    cache: int
    compute: int
    output: int


class Log:
    """The lines that the library writes, which reach nobody's screen."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
        self._is_open = False

    def add(self, level: int, text: str) -> None:
        """One call of the library: whole lines, or a part of one."""
        if self._lines and (level == _CONTINUED or self._is_open):
            before, start = self._lines.pop()
            self._lines.append((before, start + text))
        else:
            self._lines.append((level, text))
        self._is_open = not text.endswith("\n")

    def clear(self) -> None:
        """Forget what was written so far."""
        self._lines.clear()
        self._is_open = False

    def last_error(self) -> str | None:
        """The last error that names a cause, else the last one; None where there is none."""
        errors = [" ".join(text.split()) for level, text in self._lines if level == _ERROR]
        causes = [line for line in errors if not _SAYS_LITTLE.search(line)]
        return next(iter(reversed(causes or errors)), None)

    def buffer_bytes(self, kinds: Iterable[str]) -> int:
        """Sum of the buffers of these kinds."""
        matches = [_BUFFER.search(text) for _, text in self._lines]
        return sum(
            round(float(hit["size"]) * _MIB) for hit in matches if hit and hit["kind"] in kinds
        )


class LlamaModel:
    """A loaded file: weights and vocabulary. Freed with `close`, or with this object."""

    def __init__(self, file: Path) -> None:
        self.library, self.log = load_library()
        self.file = file
        self.log.clear()
        parameters = self.library.llama_model_default_params()
        pointer = self.library.llama_model_load_from_file(str(file).encode(), parameters)
        if not pointer:
            raise self.refused(what="llama.cpp refuses the file")
        self.close = weakref.finalize(self, self.library.llama_model_free, pointer)
        self.pointer = pointer
        self.vocabulary = self.library.llama_model_get_vocab(pointer)
        self.vocabulary_size = int(self.library.llama_vocab_n_tokens(self.vocabulary))
        self.trained_context = int(self.library.llama_model_n_ctx_train(pointer))
        self.weight_bytes = self.log.buffer_bytes({"model"})

    def metadata(self, key: str) -> str | None:
        """A value of the file's metadata as text; None where it has no such key."""
        buffer = ctypes.create_string_buffer(256)
        length = self.library.llama_model_meta_val_str(self.pointer, key.encode(), buffer, 256)
        return buffer.value.decode(errors="replace") if length >= 0 else None

    def refused(self, *, what: str) -> ExportFailed:
        """The error of a call that failed, with the library's own words."""
        problem = Problem(
            where=str(self.file),
            what=what,
            found=(self.log.last_error() or "no message")[:300],
            remedy="if the file is whole, this is a defect of the export: report its architecture",
        )
        return ExportFailed(problem)


class LlamaContext:
    """The memory in which a model runs one sequence. Freed with `close`, or with this object."""

    def __init__(
        self,
        model: LlamaModel,
        tokens: int,
        *,
        threads: int = 1,
        batch: int | None = None,
        is_exact: bool = False,
    ) -> None:
        """Room for `tokens`; `batch` tokens at a time, llama.cpp's own choice where None.

        With `is_exact`, keys and values are float32 in place of float16, and attention not fused.
        """
        library = model.library
        parameters = library.llama_context_default_params()
        parameters.n_ctx = tokens
        parameters.n_threads = parameters.n_threads_batch = threads
        if batch is not None:
            parameters.n_batch = parameters.n_ubatch = batch
            parameters.n_outputs_max_per_seq = 0  # the default is one: the last token's
        if is_exact:
            parameters.type_k = parameters.type_v = library.GGML_TYPE_F32
            parameters.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.embeddings = is_encoder(model)
        model.log.clear()
        pointer = library.llama_init_from_model(model.pointer, parameters)
        if not pointer:
            raise model.refused(what=f"llama.cpp cannot make a context of {tokens} tokens")
        self.close = weakref.finalize(self, library.llama_free, pointer)
        self.pointer = pointer
        self._model = model  # which must live longer
        self.tokens = tokens
        self.batch = int(library.llama_n_batch(pointer))
        self.buffers = Buffers(
            weights=model.weight_bytes,
            cache=model.log.buffer_bytes({"KV", "RS"}),
            compute=model.log.buffer_bytes({"compute"}),
            output=model.log.buffer_bytes({"output"}),
        )

    def clear(self) -> None:
        """Forget the sequence; an encoder remembers none."""
        memory = self._model.library.llama_get_memory(self.pointer)
        if memory:
            self._model.library.llama_memory_clear(memory, False)

    def decode(self, ids: Sequence[int], *, last_only: bool = False) -> None:
        """Append at most `batch` tokens to the sequence.

        Raises:
            ExportFailed: A token outside of the vocabulary, or no room.
        """
        import numpy as np

        library = self._model.library
        tokens = np.asarray(ids, np.int32)
        wanted = np.ones(len(tokens), np.int8)
        if last_only:
            wanted[:-1] = 0
        batch = library.llama_batch(
            n_tokens=len(tokens),
            token=tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            logits=wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )  # positions and the sequence are counted by the context where they are not given
        self._model.log.clear()
        status = library.llama_decode(self.pointer, batch)
        if status != 0:
            raise self._model.refused(what=f"llama.cpp cannot run {len(tokens)} tokens ({status})")

    def logits(self, count: int) -> np.ndarray:
        """float32[count, vocabulary] of the last call's tokens; a copy."""
        return self._copied(
            self._model.library.llama_get_logits(self.pointer), count, self._model.vocabulary_size
        )

    def embeddings(self, count: int) -> np.ndarray:
        """float32[count, width] of the last call: pooled, or of each token where it pools none."""
        library = self._model.library
        width = int(library.llama_model_n_embd_out(self._model.pointer))
        if self.pooling == library.LLAMA_POOLING_TYPE_NONE:
            return self._copied(library.llama_get_embeddings(self.pointer), count, width)
        return self._copied(library.llama_get_embeddings_seq(self.pointer, 0), 1, width)

    @property
    def pooling(self) -> int:
        """LLAMA_POOLING_TYPE_*, as the file says."""
        return int(self._model.library.llama_pooling_type(self.pointer))

    def _copied(self, pointer: Any, rows: int, columns: int) -> np.ndarray:  # noqa: ANN401 - ctypes
        import numpy as np

        if not pointer:
            raise self._model.refused(what="llama.cpp gives no output")
        return np.ctypeslib.as_array(pointer, (rows, columns)).copy()


def is_encoder(model: LlamaModel) -> bool:
    """Whether each token sees all others, so that the file gives embeddings and no logits."""
    architecture = model.metadata("general.architecture")
    return model.metadata(f"{architecture}.attention.causal") == "false"


def load_library() -> tuple[Any, Log]:
    """The functions of llama.h, and where their messages go.

    Raises:
        RequirementMissing: llama-cpp-python is not installed.
    """
    library, log, callback = _loaded()
    library.llama_log_set(callback, None)  # others may have set theirs since
    return library, log


@functools.cache
def _loaded() -> tuple[Any, Log, Any]:
    try:
        from llama_cpp import llama_cpp as library
    except (ImportError, OSError, RuntimeError) as error:  # its loader raises each of them
        problem = Problem(
            where="llama.cpp",
            what="the package llama-cpp-python cannot be loaded",
            found=str(error)[:200],
            remedy="pip install 'edgeship[gguf]'",
        )
        raise RequirementMissing(problem) from error
    log = Log()

    def heard(level: int, text: bytes, _: object) -> None:
        log.add(level, text.decode(errors="replace"))

    callback = library.llama_log_callback(heard)
    library.llama_log_set(callback, None)
    library.llama_backend_init()
    return library, log, callback


def batches(ids: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The tokens in parts of at most `size`."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
