"""Sample: a part of the evaluation data, as files that a board reads and writes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

_SCHEMA: Final = 1
SAMPLE_NAME: Final = "sample.json"


@dataclass(frozen=True, kw_only=True)
class TensorSample:
    """Inputs as the artifact takes them.

    Attributes:
        inputs: By name, the samples along a new first axis: [N, *shape of the input].
    """

    inputs: Mapping[str, np.ndarray]

    def files(self) -> dict[str, bytes]:
        """Contents by name: sample.json, and one little-endian file for each input."""
        entries, contents = [], {}
        for index, (name, values) in enumerate(self.inputs.items()):
            file = f"input{index}.bin"
            contents[file] = values.astype(values.dtype.newbyteorder("<")).tobytes()
            shape = [int(size) for size in values.shape[1:]]
            entries.append({"name": name, "file": file, "dtype": values.dtype.name, "shape": shape})
        count = min((len(values) for values in self.inputs.values()), default=0)
        return {**contents, SAMPLE_NAME: _described(count, inputs=entries)}


@dataclass(frozen=True, kw_only=True)
class TokenSample:
    """Chunks of text for a language model, as token ids, special ones included."""

    chunks: tuple[Sequence[int], ...]

    def files(self) -> dict[str, bytes]:
        """Contents by name: sample.json, and int32 little-endian ids."""
        import numpy as np

        ids = np.array([token for chunk in self.chunks for token in chunk], "<i4")
        chunks = {
            "file": "chunks.bin",
            "dtype": "int32",
            "lengths": [len(chunk) for chunk in self.chunks],
        }
        described = _described(len(self.chunks), chunks=chunks)
        return {"chunks.bin": ids.tobytes(), SAMPLE_NAME: described}


Sample = TensorSample | TokenSample


def output_from_bytes(content: bytes, entry: Mapping[str, Any], count: int) -> np.ndarray:
    """The samples' values of one output, [N, *shape of the output].

    Args:
        content: The file that the board wrote.
        entry: What the board says of it: dtype, shape of one sample, sha256.
        count: N.

    Raises:
        ValueError: Other bytes than those that the board wrote.
    """
    import numpy as np

    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    size = count * math.prod(shape) * dtype.itemsize
    if len(content) != size or hashlib.sha256(content).hexdigest() != entry["sha256"]:
        message = f"{entry['file']}: {len(content)} bytes that are not those that were written"
        raise ValueError(message)
    values = np.frombuffer(content, dtype.newbyteorder("<")).reshape((count, *shape))
    return values.astype(dtype)


def _described(count: int, **more: object) -> bytes:
    return json.dumps({"schema": _SCHEMA, "count": count, **more}).encode()
