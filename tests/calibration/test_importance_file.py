import os
import subprocess
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import gguf
import numpy as np
import pytest

from edgeship.calibration.importance import ChannelSums, Importance
from edgeship.calibration.importance_file import read_importance, write_importance
from edgeship.errors import ConfigurationError, ExportFailed

models = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "tiny_text_models.py")))

TOOLS: Final = Path(
    os.environ.get("EDGESHIP_LLAMA_CPP", Path(__file__).parents[2] / ".cache/llama.cpp")
)
NAMES: Final = ("blk.1.attn_q.weight", "blk.0.ffn_down.weight")


def made(**changes: ChannelSums) -> Importance:
    generator = np.random.default_rng(0)
    entries = {
        name: ChannelSums(squares=generator.random(channels) * 100, tokens=tokens)
        for name, channels, tokens in zip(NAMES, (64, 96), (9, 9), strict=True)
    }
    return Importance(entries=entries | changes, dataset="calib.txt", chunks=2, chunk_tokens=5)


def written(directory: Path, importance: Importance | None = None) -> Path:
    file = directory / "importance.gguf"
    write_importance(made() if importance is None else importance, file)
    return file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found, wanted = read_importance(written(tmp_path)), made()
    assert (found.dataset, found.chunks, found.chunk_tokens) == ("calib.txt", 2, 5)
    assert set(found.entries) == set(NAMES)
    for name, sums in wanted.entries.items():
        assert found.entries[name].tokens == sums.tokens
        np.testing.assert_array_equal(found.entries[name].squares, np.float32(sums.squares))
        np.testing.assert_array_equal(found.entries[name].means(), sums.means())


def test_the_file_is_what_llama_imatrix_writes(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(written(tmp_path))
    own = {name: field.contents() for name, field in reader.fields.items() if "." in name[:8]}
    del own["GGUF.version"], own["GGUF.tensor_count"], own["GGUF.kv_count"]
    assert own == {
        "general.type": "imatrix",
        "imatrix.datasets": ["calib.txt"],
        "imatrix.chunk_count": 2,
        "imatrix.chunk_size": 5,
    }
    assert [tensor.name for tensor in reader.tensors] == [
        f"{name}{suffix}" for name in sorted(NAMES) for suffix in (".in_sum2", ".counts")
    ]
    assert {tensor.tensor_type for tensor in reader.tensors} == {gguf.GGMLQuantizationType.F32}


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    table = made()
    shuffled = Importance(
        entries=dict(reversed(list(table.entries.items()))),
        dataset="calib.txt",
        chunks=2,
        chunk_tokens=5,
    )
    assert written(tmp_path, shuffled).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["importance.gguf"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"blk.9.x.weight": ChannelSums(squares=np.ones(4), tokens=(1 << 24) + 1)}, "16777217 tok"),
        ({"blk.9.x.weight": ChannelSums(squares=np.array([1, 1e39]), tokens=1)}, r"1e\+39"),
        ({"blk.9.x.weight": ChannelSums(squares=np.array([1, np.nan]), tokens=1)}, "sum of nan"),
    ],
)
def test_what_float32_cannot_hold_is_refused(
    tmp_path: Path, changes: dict[str, ChannelSums], found: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot be stored.*blk.9.x.weight.*{found}"):
        written(tmp_path, made(**changes))
    assert not list(tmp_path.iterdir())


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    empty = Importance(entries={}, dataset="", chunks=1, chunk_tokens=2)
    with pytest.raises(ConfigurationError, match="found no entry"):
        written(tmp_path, empty)


def test_a_directory_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="cannot be written: found No such file"):
        written(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 3, 40, 200, -100])
def test_a_damaged_file_is_refused(tmp_path: Path, keep: int) -> None:
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ConfigurationError, match="no importance matrix"):
        read_importance(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no importance matrix"):
        read_importance(tmp_path / "importance.gguf")


def with_tensors(file: Path, kind: str, **tensors: np.ndarray) -> Path:
    writer = gguf.GGUFWriter(file, "")
    writer.add_string("general.type", kind)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    finished: Path = models.finished(writer, file)
    return finished


@pytest.mark.parametrize(
    ("kind", "tensors", "found"),
    [
        ("model", {"a.in_sum2": np.ones((1, 4)), "a.counts": np.ones((1, 1))}, "'model'"),
        ("imatrix", {}, "no entry"),
        ("imatrix", {"a.in_sum2": np.ones((1, 4))}, "a with none"),
        ("imatrix", {"a.in_sum2": np.ones((2, 4)), "a.counts": np.ones((2, 1))}, "a with 2 counts"),
        ("imatrix", {"a.in_sum2": np.ones((1, 4)), "a.counts": np.zeros((1, 1))}, "0 tokens"),
        ("imatrix", {"a.in_sum2": -np.ones((1, 4)), "a.counts": np.ones((1, 1))}, "no squares"),
    ],
)
def test_other_contents_are_refused(
    tmp_path: Path, kind: str, tensors: dict[str, np.ndarray], found: str
) -> None:
    values = {name: array.astype(np.float32) for name, array in tensors.items()}
    with pytest.raises(ConfigurationError, match=f"no importance matrix.*{found}"):
        read_importance(with_tensors(tmp_path / "other.gguf", kind, **values))


# llama.cpp's own tools


def run_tool(name: str, *arguments: object) -> str:
    libraries = Path(gguf.__file__).parents[1] / "lib"
    done = subprocess.run(
        [TOOLS / "bin" / name, *map(str, arguments)],
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    not (TOOLS / "bin" / "llama-imatrix").exists(),
    reason="needs the tools of llama.cpp: make fixtures",
)
def test_llamas_tools_read_ours_and_we_read_theirs(tmp_path: Path) -> None:
    from edgeship.calibration.importance import observe_importance
    from edgeship.runtimes.llama import LlamaSession
    from edgeship.source.causal import load_causal

    models.write_llama(tmp_path)
    model = models.write_llama_gguf(tmp_path, tmp_path / "model.gguf")
    text = tmp_path / "calib.txt"
    text.write_text(models.TEXT * 4)
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    run_tool("llama-imatrix", "-m", model, "-f", text, "-o", theirs, "-c", 64, "-t", 1, "--no-ppl")
    reference = read_importance(theirs)
    tokens = LlamaSession(model).tokenize(text.read_text())
    # it puts BOS in place of the first token of each chunk
    chunks = [[1, *tokens[at + 1 : at + 64]] for at in range(0, len(tokens) - 63, 64)]
    causal = load_causal(tmp_path)
    found = observe_importance(causal.model, chunks, dataset="calib.txt")  # type: ignore[arg-type]  # as load_causal says
    assert set(found.entries) == set(reference.entries)
    assert (found.chunks, found.chunk_tokens) == (reference.chunks, reference.chunk_tokens)
    for name, sums in found.entries.items():
        wanted = reference.entries[name]
        assert sums.tokens == wanted.tokens
        # its cache is float16, with 11 bits
        np.testing.assert_allclose(sums.means(), wanted.means(), rtol=0.02, atol=1e-3)
    write_importance(found, ours)
    quantized = run_tool("llama-quantize", "--imatrix", ours, model, tmp_path / "q.gguf", "Q4_0", 1)
    assert f"loaded {len(found.entries)} importance matrix entries" in quantized
    merged = tmp_path / "merged.gguf"
    run_tool("llama-imatrix", "-m", model, "--in-file", ours, "--in-file", theirs, "-o", merged)
    total = read_importance(merged).entries
    assert all(total[name].tokens == 2 * sums.tokens for name, sums in found.entries.items())
