"""Runs one .tflite file in an interpreter of its own; a script for the Python that has the runtime.

It imports nothing of edgeship: that Python is older (3.8 to 3.11), with numpy 1. It answers on what
was its stdout; what the runtime prints goes to stderr.

A frame, both ways: uint32 little-endian length of a JSON object, that object in UTF-8, then as many
raw bytes as its "bytes" says: the tensors one after the other, little-endian, C order.

    {"do": "open", "file": path, "threads": n}  -> {"inputs", "outputs", "signature"}
    {"do": "run"} + the inputs in that order    -> {} + the outputs in that order
    anything that fails                         -> {"failed": "import" | "file", "message"}
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, BinaryIO

_PACKAGE = "tflite-runtime"


class _Loaded:
    """A file in the interpreter."""

    def __init__(self, file: str, threads: int) -> None:
        from tflite_runtime.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=file, num_threads=threads)
        self._interpreter.allocate_tensors()
        self.inputs = self._interpreter.get_input_details()
        self.outputs = self._interpreter.get_output_details()

    def describe(self) -> dict[str, Any]:
        signature: dict[str, dict[str, int]] = {"inputs": {}, "outputs": {}}
        if self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner()
            for side, details in (
                ("inputs", runner.get_input_details()),
                ("outputs", runner.get_output_details()),
            ):
                signature[side] = {name: int(item["index"]) for name, item in details.items()}
        return {
            "inputs": [_described(item) for item in self.inputs],
            "outputs": [_described(item) for item in self.outputs],
            "signature": signature,
        }

    def run(self, content: bytes) -> bytes:
        import numpy as np

        offset = 0
        for item in self.inputs:
            count = int(np.prod(item["shape"]))
            values = np.frombuffer(content, item["dtype"], count, offset)
            self._interpreter.set_tensor(item["index"], values.reshape(item["shape"]))
            offset += values.nbytes
        self._interpreter.invoke()
        return b"".join(
            self._interpreter.get_tensor(item["index"]).tobytes() for item in self.outputs
        )


def main() -> None:
    """Answer requests until stdin ends; with --version, print the runtime's and leave."""
    if sys.argv[1:] == ["--version"]:
        print(_version())
        return
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    loaded = None
    while True:
        header, content = _receive(sys.stdin.buffer)
        if header is None:
            return
        try:
            if header["do"] == "open":
                loaded = _Loaded(header["file"], header["threads"])
                _send(answers, loaded.describe(), b"")
            else:
                assert loaded is not None  # the parent opens first
                _send(answers, {}, loaded.run(content))
        except ImportError as error:
            _send(answers, {"failed": "import", "message": str(error)}, b"")
        except (RuntimeError, ValueError) as error:
            _send(answers, {"failed": "file", "message": str(error)}, b"")


def _version() -> str:
    from importlib.metadata import version

    return version(_PACKAGE)


def _described(item: dict[str, Any]) -> list[Any]:
    """Name, index, shape and dtype of a tensor, for JSON."""
    import numpy as np

    shape = [int(size) for size in item["shape"]]
    return [item["name"], int(item["index"]), shape, np.dtype(item["dtype"]).name]


def _receive(stream: BinaryIO) -> tuple[dict[str, Any] | None, bytes]:
    """The next frame; None at the end."""
    prefix = stream.read(4)
    if len(prefix) < 4:
        return None, b""
    header = json.loads(stream.read(struct.unpack("<I", prefix)[0]))
    return header, stream.read(header["bytes"])


def _send(stream: BinaryIO, header: dict[str, Any], content: bytes) -> None:
    encoded = json.dumps({**header, "bytes": len(content)}).encode()
    stream.write(struct.pack("<I", len(encoded)) + encoded + content)
    stream.flush()


if __name__ == "__main__":
    main()
