import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeship.errors import ConfigurationError, EdgeshipError, IntegrityRefused
from edgeship.source.stored_checkpoint import StoredKind, open_checkpoint
from edgeship.source.tensor_source import blocks

INDEX = "model.safetensors.index.json"
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "vocab_size": 32,
    "tie_word_embeddings": True,
}


def write_directory(directory: Path, weight_map: dict[str, object] | None = None) -> Path:
    """Two shards, `a` and `b` in the first, `c` in the second."""
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, directory / "one.safetensors")
    save_file({"c": torch.full((1, 4), 3.0)}, directory / "two.safetensors")
    (directory / "config.json").write_text(json.dumps(LLAMA))
    given = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    content = {"metadata": {"total_size": 36}, "weight_map": weight_map or given}
    (directory / INDEX).write_text(json.dumps(content))
    return directory


def refused(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught, open_checkpoint(path):
        pass
    assert all(problem.remedy for problem in caught.value.problems)
    return str(caught.value)


def test_shards_read_as_one_checkpoint_in_the_order_of_the_index(tmp_path: Path) -> None:
    with open_checkpoint(write_directory(tmp_path)) as opened:
        assert opened.kind is StoredKind.HUGGING_FACE
        assert list(opened.source.entries) == ["a", "b", "c"]
        assert opened.source.entries["c"].shape == (1, 4)
        np.testing.assert_array_equal(next(blocks(opened.source, "c")), [3, 3, 3, 3])
        assert opened.config is not None
        assert (opened.config.layers, opened.config.heads) == (2, None)
        assert opened.config.is_causal_lm
        assert not opened.findings


def test_missing_shards_are_told_by_name(tmp_path: Path) -> None:
    write_directory(
        tmp_path, {"a": "one.safetensors", "x": "gone.safetensors", "y": "too.safetensors"}
    )
    text = refused(tmp_path)
    assert "gone.safetensors: a shard is missing" in text
    assert "too.safetensors: a shard is missing" in text
    assert " one.safetensors" not in text


def test_tensors_that_are_not_in_their_shard_are_told_by_name(tmp_path: Path) -> None:
    write_directory(
        tmp_path, {"a": "one.safetensors", "c": "one.safetensors", "b": "two.safetensors"}
    )
    text = refused(tmp_path)
    assert "one.safetensors: c: a tensor of the index is not in its shard" in text
    assert "two.safetensors: b: a tensor of the index is not in its shard" in text


def test_tensors_that_no_index_lists_are_told_by_name_and_left_out(tmp_path: Path) -> None:
    write_directory(tmp_path, {"a": "one.safetensors", "c": "two.safetensors"})
    with open_checkpoint(tmp_path) as opened:
        assert list(opened.source.entries) == ["a", "c"]
        assert opened.findings == (f"in a shard, but not listed in {INDEX}: b",)


@pytest.mark.parametrize(
    "shard",
    [
        "../one.safetensors",
        "/etc/passwd",
        "x/one.safetensors",
        "one.bin",
        7,
        "",
        "..",
        "a\n.safetensors",
    ],
)
def test_an_index_cannot_name_files_elsewhere(tmp_path: Path, shard: object) -> None:
    (tmp_path / "in").mkdir()
    write_directory(tmp_path / "in", {"a": shard})
    assert "the index cannot be used" in refused(tmp_path / "in")


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"weight_map": []}', "{}"])
def test_an_index_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    write_directory(tmp_path)
    (tmp_path / INDEX).write_text(content)
    assert INDEX in refused(tmp_path)


def test_an_index_of_too_many_shards_opens_none(tmp_path: Path) -> None:
    write_directory(tmp_path, {str(number): f"{number}.safetensors" for number in range(1001)})
    assert "more than 1000 shards" in refused(tmp_path)


def test_a_whole_file_goes_before_an_index(tmp_path: Path) -> None:
    write_directory(tmp_path)
    save_file({"whole": torch.ones(1)}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as opened:
        assert list(opened.source.entries) == ["whole"]
        assert "the first was read" in opened.findings[0]
    with open_checkpoint(tmp_path / "model.safetensors") as opened:
        assert opened.kind is StoredKind.SAFETENSORS
        assert "name the directory" in opened.findings[0]


def test_a_directory_with_torch_weights_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with open_checkpoint(tmp_path) as opened:
        assert opened.kind is StoredKind.HUGGING_FACE
        assert opened.config is None
        assert opened.findings == ("the directory has no config.json",)


def test_a_directory_without_weights_is_told(tmp_path: Path) -> None:
    assert "holds no weights" in refused(tmp_path)


@pytest.mark.parametrize("name", ["absent.pt", "absent.safetensors", "absent", "absent.h5"])
def test_an_absent_path_is_told(tmp_path: Path, name: str) -> None:
    assert "no such file" in refused(tmp_path / name)


def test_another_kind_of_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"x")
    text = refused(tmp_path / "w.h5")
    assert "kind of file is not known" in text
    assert ".safetensors" in text


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.int64,
        torch.int8,
        torch.uint8,
        torch.bool,
    ],
    ids=str,
)
def test_torch_files_read_as_their_tensors(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    torch.save({"a": tensor, "t": tensor.T, "s": tensor[1, 1]}, tmp_path / "w.pt")
    wide = tensor.float() if dtype.is_floating_point and dtype != torch.float64 else tensor
    with open_checkpoint(tmp_path / "w.pt") as opened:
        source = opened.source
        assert opened.kind is StoredKind.TORCH
        assert source.entries["t"].shape == (4, 3)
        assert source.entries["s"].shape == ()
        for name, expected in (("a", wide), ("t", wide.T), ("s", wide[1, 1])):
            found = np.concatenate(list(blocks(source, name)))
            np.testing.assert_array_equal(found, expected.reshape(-1).numpy())


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.zeros(1).expand(1 << 40), "in the shape"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.zeros(2, device="meta"), "meta"),
    ],
    ids=["expanded", "sparse", "complex", "meta"],
)
def test_a_tensor_without_dense_numbers_is_refused(
    tmp_path: Path, tensor: torch.Tensor, found: str
) -> None:
    torch.save({"w": tensor}, tmp_path / "w.pt")
    try:
        text = refused(tmp_path / "w.pt")
    except IntegrityRefused:
        pytest.skip("this torch does not load it at all")
    assert found in text


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_torch_tensors_are_their_integers(tmp_path: Path) -> None:
    tensor = torch.quantize_per_tensor(torch.tensor([-1.0, 0.5]), 0.5, 3, torch.qint8)
    torch.save({"w": tensor}, tmp_path / "w.pt")
    with open_checkpoint(tmp_path / "w.pt") as opened:
        assert next(blocks(opened.source, "w")).tolist() == [1, 4]


def test_a_torch_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(IntegrityRefused), open_checkpoint(tmp_path / "w.pt"):
        pass


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": -1, "num_hidden_layers": "6", "vocab_size": 1 << 70, "architectures": {}},
        {"text_config": {"hidden_size": True}, "model_type": ["x"], "quantization_config": 4},
        {"text_config": [], "num_attention_heads": 1.0, "_name_or_path": "\x1b[2J"},
    ],
)
def test_nonsense_in_a_configuration_is_unknown(tmp_path: Path, config: object) -> None:
    write_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with open_checkpoint(tmp_path) as opened:
        found = opened.config
    assert found is not None
    numbers = (found.hidden, found.layers, found.vocabulary, found.heads, found.quantization)
    assert numbers == (None,) * 5
    assert "\x1b" not in (found.origin or "")


def test_the_text_part_of_a_model_of_several_modes_counts(tmp_path: Path) -> None:
    write_directory(tmp_path)
    config = {"model_type": "llava", "text_config": {"hidden_size": 64, "model_type": "llama"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with open_checkpoint(tmp_path) as opened:
        assert opened.config is not None
        assert (opened.config.model_type, opened.config.hidden) == ("llava", 64)


def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path) -> None:
    write_directory(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(EdgeshipError, match="JSON object"), open_checkpoint(tmp_path):
        pass


def test_safetensors_are_opened_without_torch(tmp_path: Path) -> None:
    write_directory(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from edgeship.source.survey import survey_checkpoint\n"
        "survey_checkpoint(Path(sys.argv[1]))\n"
        "print({'torch', 'safetensors'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "set()\n"
