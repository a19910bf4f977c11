"""llama.cpp on this host's CPU: run a .gguf file on token ids."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

from edgeship.errors import ExportFailed, Problem
from edgeship.runtimes.llama_library import (
    Buffers,
    LlamaContext,
    LlamaModel,
    batches,
    is_encoder,
    load_library,
)
from edgeship.runtimes.protocol import installed_version, runtime_package
from edgeship.vocabulary import Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

IDS: Final = "input_ids"
MASK: Final = "attention_mask"
TYPES: Final = "token_type_ids"
POOLED: Final = "pooled"
"""Output of an encoder whose file pools otherwise than by the mean."""
_LOGITS_BYTES: Final = 64 << 20
"""A choice: of one batch's logits, of which llama.cpp holds one copy and numpy another."""
_LARGEST_BATCH: Final = 512
"""llama.cpp's own n_ubatch."""
_SMALLEST_BATCH: Final = 16
_CONTEXT_STEP: Final = 256
"""llama.cpp rounds contexts up to this (llama-context.cpp, GGML_PAD)."""


class LlamaSession:
    """One loaded file, with the library's own attention and float16 cache, as it is shipped.

    A context is made when it is first needed, and a larger one when that is too small. `is_exact`
    leaves float32 as it is on the way, for holding a float32 file against the float model.
    """

    def __init__(self, file: Path, *, threads: int = 1, is_exact: bool = False) -> None:
        self._model = LlamaModel(file)
        self.threads = threads
        self._is_exact = is_exact
        self._context: LlamaContext | None = None
        self.is_encoder = is_encoder(self._model)
        self.vocabulary_size = self._model.vocabulary_size

    def close(self) -> None:
        """Free the model and its context; harmless when repeated."""
        if self._context is not None:
            self._context.close()
            self._context = None
        self._model.close()

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text, in which special tokens are plain text.

        Args:
            text: Any.
            add_special: Begin and end as the file says: BOS, CLS, SEP.
        """
        raw = text.encode()
        room = len(raw) + 8  # a token has a byte at least, and few are added
        while True:
            ids = (ctypes.c_int32 * room)()
            count = int(
                self._model.library.llama_tokenize(
                    self._model.vocabulary,
                    raw,
                    len(raw),
                    ids,
                    room,
                    add_special,
                    False,
                )
            )
            if count >= 0:
                return list(ids[:count])
            room = -count

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32[tokens, vocabulary] after each of the ids.

        Raises:
            ExportFailed: An encoder, or an id outside of the vocabulary.
        """
        import numpy as np

        return np.concatenate(list(self.logit_blocks(ids)))

    def logit_blocks(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        """`logits` in parts of at most 64 MiB, in order, so that no more is held at once."""
        if self.is_encoder:
            raise self._failed(what="the file gives embeddings and no logits")
        context = self._context_for(len(ids))
        context.clear()
        for part in batches(ids, context.batch):
            context.decode(part)
            yield context.logits(len(part))

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The `count` most likely tokens, one by one, after a prompt; ends of text do not end it.

        Raises:
            ExportFailed: As `logits`.
        """
        return list(self.greedy_tokens(ids, count))

    def greedy_tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """`greedy` as it goes: the prompt is run for the first token, and each token for the next.

        The session can run nothing else in between.
        """
        if self.is_encoder:
            raise self._failed(what="the file gives embeddings and no logits")
        context = self._context_for(len(ids) + count)
        context.clear()
        for part in batches(ids, context.batch):
            context.decode(part, last_only=True)
        for step in range(count):
            token = int(context.logits(1)[0].argmax())
            yield token
            if step + 1 < count:
                context.decode([token])

    def embed(self, text: str | Sequence[int]) -> np.ndarray:
        """float32[width], pooled as the file says, by the mean where it says nothing; not scaled.

        Args:
            text: Or token ids, special ones included.

        Raises:
            ExportFailed: A causal model, or more tokens than an encoder has positions for.
        """
        ids = self.tokenize(text) if isinstance(text, str) else text
        if not self.is_encoder:
            raise self._failed(what="the file gives logits and no embeddings")
        if not 0 < len(ids) <= self._model.trained_context:
            # the library itself would end the process
            limit = self._model.trained_context
            raise self._failed(
                what=f"the file takes 1 to {limit} tokens, and this text has {len(ids)}"
            )
        context = self._context_for(len(ids))
        context.decode(ids)
        vector: np.ndarray = context.embeddings(len(ids)).mean(axis=0)
        return vector

    def buffers(self, context_tokens: int) -> Buffers:
        """What the library holds for a context of so many tokens, with its default batch."""
        context = LlamaContext(self._model, context_tokens, threads=self.threads)
        try:
            return context.buffers
        finally:
            context.close()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Session.run`: int64[1, T] `input_ids`, `attention_mask`, `token_type_ids`.

        Tokens that the mask leaves out are not run. A causal model gives `logits`
        float32[1, T, vocabulary], zero where the mask is; an encoder float32[1, width],
        `mean_pooled`, or `pooled` where the file pools otherwise.

        Raises:
            ExportFailed: Other inputs, holes in the mask, or token types that are not 0, the only
                ones that llama.cpp knows.
        """
        import numpy as np

        ids, kept = self._checked(inputs)
        if self.is_encoder:
            vector = self.embed(ids[kept].tolist())
            return {self._pooled_name(): vector[np.newaxis]}
        logits = np.zeros((len(ids), self.vocabulary_size), np.float32)
        logits[kept] = self.logits(ids[kept].tolist())
        return {str(Output.LOGITS): logits[np.newaxis]}

    def _checked(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """int64[T] ids, and bool[T] which of them count."""
        import numpy as np

        ids = inputs.get(IDS)
        unknown = sorted(set(inputs) - {IDS, MASK, TYPES})
        if ids is None or ids.ndim != 2 or len(ids) != 1 or unknown:
            given = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise self._failed(
                what="the inputs are not those of a text model", found=given or "none"
            )
        kept = inputs.get(MASK, np.ones_like(ids))[0] != 0
        if TYPES in inputs and inputs[TYPES][0][kept].any():
            raise self._failed(what="llama.cpp takes no token types but 0")
        if not kept.any() or np.diff(np.flatnonzero(kept)).max(initial=1) > 1:
            raise self._failed(
                what="the attention mask keeps no tokens, or some with holes between"
            )
        return ids[0], kept

    def _pooled_name(self) -> str:
        assert self._context is not None  # embed has made it
        library = self._model.library
        means = (library.LLAMA_POOLING_TYPE_MEAN, library.LLAMA_POOLING_TYPE_NONE)
        return str(Output.MEAN_POOLED) if self._context.pooling in means else POOLED

    def _context_for(self, tokens: int) -> LlamaContext:
        if self._context is None or self._context.tokens < tokens:
            if self._context is not None:
                self._context.close()
            room = -(-tokens // _CONTEXT_STEP) * _CONTEXT_STEP
            rows = _LOGITS_BYTES // (4 * self.vocabulary_size)
            # an encoder has to see all tokens at once
            batch = room if self.is_encoder else max(_SMALLEST_BATCH, min(rows, _LARGEST_BATCH))
            self._context = LlamaContext(
                self._model, room, threads=self.threads, batch=batch, is_exact=self._is_exact
            )
        return self._context

    def _failed(self, *, what: str, found: str | None = None) -> ExportFailed:
        remedy = "report this as a defect of edgeship"
        return ExportFailed(
            Problem(where=str(self._model.file), what=what, found=found, remedy=remedy)
        )


class LlamaRuntime:
    """The package `llama-cpp-python`."""

    def version(self) -> str | None:
        """See `Runtime.version`."""
        return installed_version(runtime_package("llama.cpp"))

    def open(self, file: Path, *, threads: int = 1) -> LlamaSession:
        """See `Runtime.open`."""
        return LlamaSession(file, threads=threads)


def system_info() -> str:
    """What the library was compiled for: `CPU : SSE3 = 1 | AVX2 = 1 | ...`.

    Raises:
        RequirementMissing: It is not installed.
    """
    library, _ = load_library()
    return str(library.llama_print_system_info().decode())
