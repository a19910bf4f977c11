import json

import numpy as np
import pytest

from edgeship.device_tests.smoke.sample import TensorSample, TokenSample, output_from_bytes


def test_tensors_are_little_endian_and_one_after_the_other() -> None:
    values = np.arange(12, dtype=">i4").reshape(3, 1, 4)
    files = TensorSample(inputs={"a/b": values}).files()
    described = json.loads(files["sample.json"])
    assert described["count"] == 3
    (entry,) = described["inputs"]
    assert entry == {"name": "a/b", "file": "input0.bin", "dtype": "int32", "shape": [1, 4]}
    assert files["input0.bin"] == values.astype("<i4").tobytes()


def test_chunks_say_their_lengths() -> None:
    files = TokenSample(chunks=((1, 2), (3,))).files()
    described = json.loads(files["sample.json"])
    assert described["chunks"]["lengths"] == [2, 1]
    assert np.frombuffer(files["chunks.bin"], "<i4").tolist() == [1, 2, 3]


def test_outputs_that_arrive_otherwise_are_refused() -> None:
    import hashlib

    content = np.arange(6, dtype="<f4").tobytes()
    entry = {
        "file": "output0.bin",
        "dtype": "float32",
        "shape": [3],
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    np.testing.assert_array_equal(
        output_from_bytes(content, entry, 2), np.arange(6, dtype=np.float32).reshape(2, 3)
    )
    for wrong in (content[:-1], content[:-1] + b"x"):
        with pytest.raises(ValueError, match=r"output0\.bin"):
            output_from_bytes(wrong, entry, 2)
