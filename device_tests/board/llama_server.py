"""A .gguf file in llama.cpp's llama-server, over loopback HTTP, with token ids and no text."""

import collections
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from typing import IO, Any, Deque, Dict, List, Optional, Tuple

import numpy as np

from edgeship.device_tests.board import memory
from edgeship.device_tests.board.artifact import Artifact
from edgeship.device_tests.board.ending import outcome_of
from edgeship.device_tests.board.stopped import Stopped, first_line
from edgeship.device_tests.board.worker import end_with_parent

_READY_S = 300.0
"""A choice: a gigabyte from an SD card at 20 MB/s takes 50 s."""
_ANSWER_S = 600.0
_LOOK_S = 0.05
_MOST_BANNED = 8
_AS_GOOD_AS_NONE = -1e4
"""exp of it is 0 in float64."""
_CONTEXT = 512
"""A choice: golden prompts have 32 tokens at most and continue for 32; encoders take 512."""


def program_version(program: str) -> Optional[str]:
    """What `llama-server --version` says: "0.5.0", or "4567" of older ones; None where nothing.

    Raises:
        Stopped: "no-runtime": there is no such program, or it cannot be started;
            "illegal-instruction": it dies of one.
    """
    try:
        process = subprocess.Popen(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        message = f"{program} cannot be started: {error.strerror}"
        raise Stopped("no-runtime", message) from error
    try:
        said = process.communicate(timeout=60)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    if process.returncode < 0:
        raise _died(-process.returncode, said)
    if process.returncode > 0:
        message = f"{program} cannot be used: {first_line(said)}"
        raise Stopped("no-runtime", message)
    match = re.search(r"version: (\S+)", said)
    return match.group(1) if match else None


Json = Any
"""What a server answers."""


class ServerSession:
    """See `Loaded.open`; the program ends with this process, or with `close`."""

    inputs: Optional[Dict[str, Tuple[Tuple[int, ...], str]]] = None

    def __init__(self, program: str, artifact: Artifact, threads: int) -> None:
        self._is_encoder = all(spec["name"] != "logits" for spec in artifact.outputs) and bool(
            artifact.outputs
        )
        self._pooled = next((spec["name"] for spec in artifact.outputs), "mean_pooled")
        self._said: Deque[str] = collections.deque(maxlen=200)
        self._port = _free_port()
        command = [program, "--model", artifact.model, "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--threads", str(threads)]
        command += ["--ctx-size", str(_CONTEXT), "--parallel", "1", "--no-warmup"]
        if self._is_encoder:
            command += [
                "--embedding",
                "--batch-size",
                str(_CONTEXT),
                "--ubatch-size",
                str(_CONTEXT),
            ]
        parent = os.getpid()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: end_with_parent(parent),
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self._wait_until_ready()

    def run(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """An encoder's embedding; of other models the next token's log-probabilities."""
        if self._is_encoder:
            return {self._pooled: self._embedding(_kept(inputs))}
        return self.answer(inputs, {})

    def answer(
        self, inputs: Dict[str, np.ndarray], wanted: Dict[str, Tuple[int, ...]]
    ) -> Dict[str, np.ndarray]:
        """What a golden case expects of its prompt."""
        if self._is_encoder:
            return self.run(inputs)
        ids = _kept(inputs)
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
        """Largest resident size of the program."""
        return memory.peak_bytes(self._process.pid)

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()

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
        return self._ask(
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
        answer = self._ask("/embedding", {"content": ids, "embd_normalize": -1})
        rows = np.array(answer[0]["embedding"], np.float32)
        mean: np.ndarray = rows.reshape(-1, rows.shape[-1]).mean(axis=0)[np.newaxis]
        return mean

    def _ask(self, path: str, body: Dict[str, Any]) -> Json:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=json.dumps(body).encode("ascii"),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_ANSWER_S) as answer:
                return json.loads(answer.read().decode("utf-8"))
        except urllib.error.HTTPError as error:
            said = first_line(error.read().decode("utf-8", "replace"))
            raise Stopped("failed", f"llama-server answers {error.code}: {said}") from error
        except (OSError, ValueError) as error:
            raise self._gone(error) from error

    def _wait_until_ready(self) -> None:
        """Until it has loaded the file: it answers /health with 503 before."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        start = time.monotonic()
        while time.monotonic() - start < _READY_S:
            if self._process.poll() is not None:
                raise self._gone(None)
            try:
                with opener.open(f"http://127.0.0.1:{self._port}/health", timeout=_ANSWER_S):
                    return
            except (OSError, ValueError):  # not yet
                time.sleep(_LOOK_S)
        self.close()
        raise Stopped("timeout", f"llama-server has not loaded the file in {_READY_S:g} s")

    def _gone(self, error: Optional[Exception]) -> Stopped:
        """Why it does not answer."""
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return Stopped("failed", f"llama-server does not answer: {error}")
        said = "\n".join(self._said)
        if status < 0:
            return _died(-status, said)
        errors = [line for line in self._said if "error" in line.lower()]
        text = first_line(errors[0] if errors else said)
        return Stopped("refused", f"llama-server ends with status {status}: {text}")

    def _listen(self) -> None:
        stream: Optional[IO[bytes]] = self._process.stdout
        assert stream is not None  # a pipe
        for line in stream:
            self._said.append(line.decode("utf-8", "replace").rstrip())


def _died(number: int, said: str) -> Stopped:
    """Of a signal; the kernel's killer is the only one that sends SIGKILL to it."""
    found = outcome_of(number, stderr=said, was_out_of_memory=True)
    assert found is not None  # the low seven bits of a wait status are the signal
    lines = [line for line in said.splitlines() if line.strip()]
    last = f" ({first_line(lines[-1])})" if lines else ""
    return Stopped(found[0], f"llama-server: {found[1]}{last}")


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port: int = own.getsockname()[1]
        return port


def _kept(inputs: Dict[str, np.ndarray]) -> List[int]:
    """The tokens that the mask keeps."""
    ids = inputs["input_ids"][0]
    mask = inputs.get("attention_mask")
    kept: List[int] = ids.tolist() if mask is None else ids[mask[0] != 0].tolist()
    return kept
