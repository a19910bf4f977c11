"""A .gguf file in llama.cpp's llama-server, with token ids and no text."""

from typing import Dict, List, Optional, Tuple

import numpy as np

from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.llama_program import Json, LlamaProgram
from edgeship.device_tests.board.session import Session, Tensors, kept_tokens
from edgeship.device_tests.board.stopped import Stopped

_MOST_BANNED = 8
_AS_GOOD_AS_NONE = -1e4
"""exp of it is 0 in float64."""
_CONTEXT = 512
"""A choice: golden prompts have 32 tokens at most and continue for 32; encoders take 512."""


class ServerSession(Session):
    """See `Session`; the program ends with this process, or with `close`."""

    def __init__(self, program: str, artifact: Artifact, threads: int) -> None:
        names = [spec["name"] for spec in artifact.outputs]
        self._is_encoder = bool(names) and "logits" not in names
        self._pooled = names[0] if names else "mean_pooled"
        context = str(_CONTEXT)
        options = ["--model", artifact.model, "--threads", str(threads)]
        options += ["--ctx-size", context, "--parallel", "1", "--no-warmup"]
        if self._is_encoder:
            options += ["--embedding", "--batch-size", context, "--ubatch-size", context]
        self._program = LlamaProgram(program, options)

    def run(self, inputs: Tensors) -> Tensors:
        """An encoder's embedding; of other models the next token's log-probabilities."""
        if self._is_encoder:
            return {self._pooled: self._embedding(kept_tokens(inputs))}
        return self.answer(inputs, {})

    def answer(self, inputs: Tensors, wanted: Dict[str, Tuple[int, ...]]) -> Tensors:
        """What a golden case expects of its prompt."""
        if self._is_encoder:
            return self.run(inputs)
        ids = kept_tokens(inputs)
        found = {}
        if "tokens" in wanted:
            count = wanted["tokens"][-1]
            found["tokens"] = np.array([self._continued(ids, count)], np.int32)
        if "logprobs" in wanted:
            found["logprobs"] = self._logprobs(ids, wanted["logprobs"][-1])
        if not wanted:
            self._completion(ids, 1)
        return found

    def peak_bytes(self) -> Optional[int]:
        """Of the program."""
        return self._program.peak_bytes()

    def close(self) -> None:
        """End the program."""
        self._program.close()

    def _continued(self, ids: List[int], count: int) -> List[int]:
        """The greedy continuation; an end of text does not end it, but is a token of it."""
        tokens: List[int] = []
        while len(tokens) < count:
            answer = self._completion(ids + tokens, count - len(tokens))
            new = [int(token) for token in answer["tokens"]]
            if not new:
                raise Stopped("failed", f"llama-server gives no token after {len(tokens)}")
            tokens += new
        return tokens[:count]

    def _logprobs(self, ids: List[int], vocabulary: int) -> np.ndarray:
        """float32[1, vocabulary] after the last token; what it leaves out is as good as 0.

        It keeps no probabilities of a token that is a part of a character alone: then another one
        is asked for, which does not change them, as they are taken before any choosing.
        """
        banned: List[List[object]] = []
        for _ in range(_MOST_BANNED):
            answer = self._completion(ids, 1, probabilities=vocabulary, banned=banned)
            first = answer["tokens"][0]
            row = answer["completion_probabilities"][0]
            if row["id"] == first:
                values = np.full((1, vocabulary), _AS_GOOD_AS_NONE, np.float32)
                for item in row["top_logprobs"]:
                    values[0, int(item["id"])] = max(item["logprob"], _AS_GOOD_AS_NONE)
                return values
            banned.append([first, False])
        raise Stopped("failed", "llama-server gives no probabilities of parts of characters")

    def _completion(
        self,
        ids: List[int],
        count: int,
        *,
        probabilities: int = 0,
        banned: Optional[List[List[object]]] = None,
    ) -> Json:
        return self._program.ask(
            "/completion",
            {
                "prompt": ids,
                "n_predict": count,
                "temperature": 0,
                "samplers": ["top_k"],
                "top_k": 1,
                "n_probs": probabilities,
                "logit_bias": banned or [],
                "cache_prompt": False,
                "return_tokens": True,
            },
        )

    def _embedding(self, ids: List[int]) -> np.ndarray:
        """float32[1, width], not scaled to length 1."""
        answer = self._program.ask("/embedding", {"content": ids, "embd_normalize": -1})
        rows = np.array(answer[0]["embedding"], np.float32)
        mean: np.ndarray = rows.reshape(-1, rows.shape[-1]).mean(axis=0)[np.newaxis]
        return mean
