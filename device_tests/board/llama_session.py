"""A .gguf file in llama-cpp-python, through the C functions that it wraps."""

import collections
import ctypes
import re
from typing import Any, Deque, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.packages import Vendor
from edgeship.device_tests.board.session import Session, Tensors, kept_tokens
from edgeship.device_tests.board.stopped import Stopped, first_line, says_out_of_memory

_LARGEST_BATCH = 512
"""llama.cpp's own n_ubatch."""
_SMALLEST_BATCH = 16
_LOGITS_BYTES = 16 << 20
"""A choice: of one batch's logits; boards are small."""
_CONTEXT_STEP = 256
"""llama.cpp rounds contexts up to this (llama-context.cpp, GGML_PAD)."""
_SAYS_LITTLE = re.compile(r"failed to (load model|create context|initialize batch)$")
"""What follows the line that has the cause."""


class LlamaSession(Session):
    """See `Session`; its inputs are token ids, and files do not declare them.

    A model with logits answers "tokens" (its greedy continuation), "logprobs" (after the last token
    of the prompt) and "logits"; an encoder its pooled embedding.
    """

    def __init__(self, vendor: Vendor, artifact: Artifact, threads: int) -> None:
        self._library = vendor
        self._threads = threads
        self._context: Any = None
        self._room = 0
        self._batch = 0
        self._errors: Deque[str] = collections.deque(maxlen=50)
        self._callback = vendor.llama_log_callback(self._heard)
        vendor.llama_log_set(self._callback, None)
        vendor.llama_backend_init()
        parameters = vendor.llama_model_default_params()
        self._model = vendor.llama_model_load_from_file(artifact.model.encode(), parameters)
        if not self._model:
            raise self._stopped("refused", "llama.cpp refuses the file")
        vocabulary = vendor.llama_model_get_vocab(self._model)
        self._width = int(vendor.llama_vocab_n_tokens(vocabulary))
        self._is_encoder = self._metadata_says_encoder()
        self._pooled = next((spec["name"] for spec in artifact.outputs), "mean_pooled")

    def run(self, inputs: Tensors) -> Tensors:
        """Logits float32[1, T, vocabulary] of all tokens, or an encoder's embedding."""
        ids = kept_tokens(inputs)
        if self._is_encoder:
            return {self._pooled: self._embedding(ids)}
        return {"logits": np.concatenate(list(self._blocks(ids)))[np.newaxis]}

    def answer(self, inputs: Tensors, wanted: Dict[str, Tuple[int, ...]]) -> Tensors:
        """What a golden case expects of its prompt."""
        if self._is_encoder or "logits" in wanted:
            return self.run(inputs)
        ids = kept_tokens(inputs)
        count = wanted["tokens"][-1] if "tokens" in wanted else 0
        last = self._prompted(ids, len(ids) + count)
        found = {"logprobs": _log_softmax(last)[np.newaxis].astype(np.float32)}
        tokens: List[int] = []
        while len(tokens) < count:
            tokens.append(int(last.argmax()))
            if len(tokens) < count:
                last = self._decode(tokens[-1:])[0]
        found["tokens"] = np.array([tokens], np.int32)
        return found

    def chunk_loss(self, ids: Sequence[int]) -> Tuple[float, int]:
        """Negative log-likelihood in nats of each token but the first, summed; and their number."""
        loss, at = 0.0, 1
        for block in self._blocks(ids):
            targets = ids[at : at + len(block)]
            for row, target in zip(block, targets):
                loss -= float(_log_softmax(row)[target])
            at += len(block)
        return loss, len(ids) - 1

    def close(self) -> None:
        """Free the model and its context."""
        self._free_context()
        if self._model:
            self._library.llama_model_free(self._model)
            self._model = None

    def _prompted(self, ids: Sequence[int], room: int) -> np.ndarray:
        """float32[vocabulary] after the last of the tokens, with room for more."""
        self._make_room(room)
        last = np.zeros(0)
        for start in range(0, len(ids), self._batch):
            last = self._decode(ids[start : start + self._batch], is_last_only=True)[0]
        return last

    def _blocks(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        """float32[rows, vocabulary] after each of the tokens, in parts."""
        self._make_room(len(ids))
        for start in range(0, len(ids), self._batch):
            yield self._decode(ids[start : start + self._batch])

    def _embedding(self, ids: Sequence[int]) -> np.ndarray:
        """float32[1, width], pooled as the file says, by the mean where it says nothing."""
        library = self._library
        self._make_room(len(ids))
        self._run(ids, np.ones(len(ids), np.int8))
        width = int(
            getattr(library, "llama_model_n_embd_out", library.llama_model_n_embd)(self._model)
        )
        if library.llama_pooling_type(self._context) == library.LLAMA_POOLING_TYPE_NONE:
            rows = _copied(library.llama_get_embeddings(self._context), len(ids), width)
            mean: np.ndarray = rows.mean(axis=0)[np.newaxis]
            return mean
        return _copied(library.llama_get_embeddings_seq(self._context, 0), 1, width)

    def _decode(self, ids: Sequence[int], is_last_only: bool = False) -> np.ndarray:
        wanted = np.ones(len(ids), np.int8)
        if is_last_only:
            wanted[:-1] = 0
        self._run(ids, wanted)
        pointer = self._library.llama_get_logits(self._context)
        return _copied(pointer, int(wanted.sum()), self._width)

    def _run(self, ids: Sequence[int], wanted: np.ndarray) -> None:
        """Append tokens to the sequence."""
        tokens = np.asarray(ids, np.int32)
        batch = self._library.llama_batch(
            n_tokens=len(tokens),
            token=tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            logits=wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        status = self._library.llama_decode(self._context, batch)
        if status != 0:
            raise self._stopped("failed", f"llama.cpp cannot run {len(tokens)} tokens")

    def _make_room(self, tokens: int) -> None:
        """A context of at least so many tokens that remembers none."""
        library = self._library
        if tokens <= self._room:
            memory = library.llama_get_memory(self._context)
            if memory:
                library.llama_memory_clear(memory, False)
            return
        self._free_context()
        room = -(-tokens // _CONTEXT_STEP) * _CONTEXT_STEP
        rows = max(_SMALLEST_BATCH, min(_LOGITS_BYTES // (4 * self._width), _LARGEST_BATCH))
        parameters = library.llama_context_default_params()
        parameters.n_ctx = room
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.n_batch = parameters.n_ubatch = room if self._is_encoder else rows
        if hasattr(parameters, "n_outputs_max_per_seq"):
            parameters.n_outputs_max_per_seq = 0  # the default is one: the last token's
        parameters.embeddings = self._is_encoder
        self._context = library.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise self._stopped("failed", f"llama.cpp makes no context of {room} tokens")
        self._room, self._batch = room, int(library.llama_n_batch(self._context))

    def _free_context(self) -> None:
        if self._context:
            self._library.llama_free(self._context)
        self._context, self._room = None, 0

    def _metadata_says_encoder(self) -> bool:
        architecture = self._metadata("general.architecture")
        return self._metadata(f"{architecture}.attention.causal") == "false"

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        self._library.llama_model_meta_val_str(self._model, key.encode(), buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    def _heard(self, level: int, text: bytes, _user: object) -> None:
        if level == 4:  # GGML_LOG_LEVEL_ERROR, ggml.h
            self._errors.append(" ".join(text.decode("utf-8", "replace").split()))

    def _stopped(self, outcome: str, what: str) -> Stopped:
        """With the library's own words: the last that name a cause."""
        causes = [line for line in self._errors if line and not _SAYS_LITTLE.search(line)]
        said = first_line((causes or [*self._errors, "no message"])[-1])
        if any(says_out_of_memory(line) for line in self._errors):
            outcome = "out-of-memory"
        return Stopped(outcome, f"{what}: {said}")


def _copied(pointer: Vendor, rows: int, columns: int) -> np.ndarray:
    if not pointer:
        raise Stopped("failed", "llama.cpp gives no output")
    found: np.ndarray = np.ctypeslib.as_array(pointer, (rows, columns)).copy()
    return found


def _log_softmax(row: np.ndarray) -> np.ndarray:
    """float64, exact to a few roundings: the largest exponent is 0."""
    shifted = row.astype(np.float64)
    shifted = shifted - shifted.max()
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    return result
