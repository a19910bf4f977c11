"""llama.cpp's llama-server: a program that is started with a file and asked over loopback HTTP."""

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
from typing import IO, Any, Deque, Dict, List, Optional

from edgeship.device_tests.board import memory
from edgeship.device_tests.board.ending import outcome_of
from edgeship.device_tests.board.stopped import Stopped, first_line
from edgeship.device_tests.board.worker import end_with_parent

_READY_S = 300.0
"""A choice: a gigabyte from an SD card at 20 MB/s takes 50 s."""
_ANSWER_S = 600.0
"""A choice: of one answer; emulated boards are slow."""
_LOOK_S = 0.05

Json = Any
"""What a server answers."""


class LlamaProgram:
    """A running llama-server that has loaded its file; it ends with this process, or with `close`.

    Args:
        program: Path of llama-server.
        options: Of the program, beside where it listens.

    Raises:
        Stopped: It does not load the file.
    """

    def __init__(self, program: str, options: List[str]) -> None:
        self._said: Deque[str] = collections.deque(maxlen=200)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        port = _free_port()
        self._address = f"http://127.0.0.1:{port}"
        parent = os.getpid()
        self._process = subprocess.Popen(
            [program, "--host", "127.0.0.1", "--port", str(port), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: end_with_parent(parent),
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self._wait_until_ready()

    def ask(self, path: str, body: Dict[str, Any]) -> Json:
        """What it answers to a POST of JSON.

        Raises:
            Stopped: It answers with an error, not at all, or has ended.
        """
        request = urllib.request.Request(
            self._address + path,
            data=json.dumps(body).encode("ascii"),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=_ANSWER_S) as answer:
                return json.loads(answer.read().decode("utf-8"))
        except urllib.error.HTTPError as error:
            said = first_line(error.read().decode("utf-8", "replace"))
            raise Stopped("failed", f"llama-server answers {error.code}: {said}") from error
        except (OSError, ValueError) as error:
            raise self._gone(error) from error

    def peak_bytes(self) -> Optional[int]:
        """Its largest resident size."""
        return memory.peak_bytes(self._process.pid)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _wait_until_ready(self) -> None:
        """Until it has loaded the file: it answers /health with 503 before."""
        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise self._gone(None)
            left = max(_LOOK_S, end - time.monotonic())
            try:
                with self._opener.open(self._address + "/health", timeout=left):
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
