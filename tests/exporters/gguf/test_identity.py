"""Whole files against llama.cpp's converter and llama-quantize, which `make fixtures` builds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeship.exporters.gguf.architectures import read_blueprint
from edgeship.exporters.gguf.blueprint import closing_metadata
from edgeship.exporters.gguf.file_types import file_type_named
from edgeship.exporters.gguf.mixture import assign_kinds
from edgeship.exporters.gguf.stream import Contents, write_gguf
from edgeship.exporters.gguf.vocabulary import read_vocabulary
from edgeship.source.stored_checkpoint import open_checkpoint

checkpoints = SimpleNamespace(**run_path(str(Path(__file__).with_name("checkpoints.py"))))

VARIABLE: Final = "EDGESHIP_LLAMA_CPP"
TOOLS: Final = Path(os.environ.get(VARIABLE, Path(__file__).parents[3] / ".cache/llama.cpp"))
FILE_TYPES: Final = ("q4_0", "q4_k_m", "q4_k_s", "iq4_nl", "iq4_xs", "q5_k_m", "q6_k", "f16")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (TOOLS / "bin" / "llama-quantize").exists(),
        reason="needs the tools of llama.cpp: make fixtures",
    ),
]
Floats = NDArray[np.float32]


def our_file(
    directory: Path, path: Path, file_type: str, importance: Mapping[str, Floats] | None = None
) -> Path:
    blueprint = read_blueprint(directory)
    vocabulary = read_vocabulary(directory, blueprint.architecture, blueprint.facts.vocabulary)
    assignment = assign_kinds(
        blueprint.tensors,
        blueprint.facts,
        file_type,
        importance is not None,
        architecture=blueprint.architecture,
    )
    closing = closing_metadata(file_type_named(file_type).number)
    contents = Contents(
        metadata=blueprint.metadata + vocabulary.metadata + closing,
        tensors=blueprint.tensors,
        kinds=assignment.kinds,
    )
    with open_checkpoint(directory) as checkpoint:
        write_gguf(checkpoint.source, contents, path, threads=2, importance=importance)
    return path


def run(*command: str | Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def converted(directory: Path, path: Path, outtype: str) -> Path:
    script = TOOLS / "convert_hf_to_gguf.py"
    run(sys.executable, script, directory, "--outtype", outtype, "--outfile", path)
    return path


def their_file(source: Path, path: Path, file_type: str, *options: str | Path) -> Path:
    run(TOOLS / "bin" / "llama-quantize", *options, source, path, file_type, "1")
    return path


@pytest.fixture(scope="module", params=["llama", "llama f32", "llama f16", "qwen2"])
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, `hf`, and what the converter made of it, `whole.gguf`."""
    place = tmp_path_factory.mktemp("peer")
    directory = place / "hf"
    match str(request.param):
        case "llama":
            checkpoints.write_llama(directory, checkpoints.Shape())
        case "llama f32":  # widths that few kinds suit
            odd = checkpoints.Shape(hidden=96, ffn=160, layers=9, kv_heads=1)
            checkpoints.write_llama(directory, odd, element="F32", shards=3)
        case "llama f16":
            shape = checkpoints.Shape(layers=9, ffn=256, kv_heads=1, ties_embeddings=True)
            checkpoints.write_llama(directory, shape, element="F16", shards=1)
        case "qwen2":
            shape = checkpoints.Shape(ties_embeddings=True, has_biases=True)
            checkpoints.write_qwen2(directory, shape)
        case other:
            raise ValueError(other)
    outtype = "bf16" if request.param in ("llama", "qwen2") else "f32"
    converted(directory, place / "whole.gguf", outtype)
    return place


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_the_file_is_the_one_that_llama_cpp_makes_in_two_steps(
    peer: Path, tmp_path: Path, file_type: str
) -> None:
    theirs = their_file(peer / "whole.gguf", tmp_path / "theirs.gguf", file_type)
    ours = our_file(peer / "hf", tmp_path / "ours.gguf", file_type)
    assert_same(ours, theirs)


def assert_same(ours: Path, theirs: Path) -> None:
    one, other = ours.read_bytes(), theirs.read_bytes()
    if one != other:  # an assert on the bytes would print them
        pairs = zip(one, other, strict=False)
        at = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
        near = one[max(0, at - 40) : at + 24], other[max(0, at - 40) : at + 24]
        pytest.fail(f"{len(one)} and {len(other)} bytes, from {at} on: {near[0]!r} {near[1]!r}")


@pytest.mark.parametrize("file_type", ["q4_0", "q4_k_m", "q4_k_s", "iq4_nl", "iq4_xs", "q4_1"])
def test_with_an_importance_matrix_every_tensor_is_the_same(
    peer: Path, tmp_path: Path, file_type: str
) -> None:
    importance = random_importance(peer / "hf")
    matrix = write_importance(tmp_path / "importance.gguf", importance)
    whole, path = peer / "whole.gguf", tmp_path / "theirs.gguf"
    theirs = their_file(whole, path, file_type, "--imatrix", matrix)
    ours = our_file(peer / "hf", tmp_path / "ours.gguf", file_type, importance)
    assert tensors_of(ours) == tensors_of(theirs)


def random_importance(directory: Path) -> dict[str, Floats]:
    """For every matrix but the table, which the tool that collects it never sees."""
    generator = np.random.default_rng(11)
    return {
        plan.name: generator.exponential(1.0, plan.columns).astype(np.float32)
        for plan in read_blueprint(directory).tensors
        if len(plan.shape) == 2 and plan.name != "token_embd.weight"
    }


def write_importance(path: Path, importance: Mapping[str, Floats]) -> Path:
    """Source: tools/imatrix/imatrix.cpp of llama.cpp, `save_imatrix`; sums over one token."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["random"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 1)
    for name, values in importance.items():
        writer.add_tensor(f"{name}.in_sum2", values.reshape(1, -1))
        writer.add_tensor(f"{name}.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors_of(path: Path) -> dict[str, tuple[str, bytes]]:
    tensors = gguf.GGUFReader(path).tensors
    return {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in tensors}
