import json
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from edgeship.errors import ConfigurationError, EdgeshipError, IntegrityRefused
from edgeship.source.checkpoint import check_weights, read_checkpoint, stored_files
from edgeship.source.wrappers import without_prefixes

FLIPS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5
)
"""Where, as a share of the file's length, and the new byte."""


class RunsCommand:
    """Pickles as a call of os.system."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


class Evaluates:
    """Pickles as a call of eval, which torch's block list does not name."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.marker)!r}, 'w')",)


def make_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(3, 2, generator=generator),
        "conv.bias": torch.randn(3, generator=generator),
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def assert_refused(file: Path) -> str:
    """The text of the one problem, which names the file and says what to do."""
    with pytest.raises(ConfigurationError) as caught:
        read_checkpoint(file)
    (problem,) = caught.value.problems
    assert problem.where == str(file)
    assert problem.remedy
    return str(problem)


def test_safetensors_are_read_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    tensors = make_tensors()
    save_file(tensors, file)
    assert {name: tuple(tensor.shape) for name, tensor in read_checkpoint(file).items()} == {
        "conv.weight": (3, 2),
        "conv.bias": (3,),
    }
    assert torch.equal(read_checkpoint(file)["conv.weight"], tensors["conv.weight"])


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".ckpt"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_files_are_read_under_every_suffix(tmp_path: Path, suffix: str, is_zip: bool) -> None:
    file = tmp_path / f"w{suffix}"
    tensors = make_tensors()
    torch.save(OrderedDict(tensors), file, _use_new_zipfile_serialization=is_zip)
    assert_same(read_checkpoint(file), tensors)


@pytest.mark.parametrize("keys", [["state_dict"], ["model"], ["net"], ["model", "state_dict"]])
def test_wrapper_dicts_are_taken_off(tmp_path: Path, keys: list[str]) -> None:
    tensors = make_tensors()
    value: dict[str, object] = dict(tensors)
    for key in keys:
        value = {"epoch": 3, key: value, "optimizer": {"lr": 0.1, "state": {0: torch.zeros(9)}}}
    torch.save(value, tmp_path / "w.pt")
    assert_same(read_checkpoint(tmp_path / "w.pt"), tensors)


def test_a_layer_that_is_called_model_is_no_wrapper(tmp_path: Path) -> None:
    tensors = {"model": torch.zeros(2), "net": torch.ones(1)}
    torch.save(tensors, tmp_path / "w.pt")
    save_file(tensors, tmp_path / "w.safetensors")
    assert_same(read_checkpoint(tmp_path / "w.pt"), tensors)
    assert_same(read_checkpoint(tmp_path / "w.safetensors"), tensors)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_prefixes_on_all_names_are_taken_off(tmp_path: Path, prefix: str) -> None:
    tensors = make_tensors()
    save_file({prefix + name: item for name, item in tensors.items()}, tmp_path / "w.safetensors")
    found = read_checkpoint(tmp_path / "w.safetensors")
    assert sorted(found) == sorted(tensors)


def test_a_prefix_on_some_names_stays() -> None:
    tensors = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(without_prefixes(tensors)) == ["module.a", "b"]
    assert without_prefixes({}) == {}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("attack", [RunsCommand, Evaluates])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(
    tmp_path: Path, is_zip: bool, attack: type[RunsCommand | Evaluates]
) -> None:
    marker, file = tmp_path / "ran", tmp_path / "w.pt"
    value = {"a": torch.zeros(1), "b": attack(marker)}
    torch.save(value, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(IntegrityRefused, match="wants to do more than hold tensors") as caught:
        read_checkpoint(file)
    assert int(caught.value.exit_code) == 9
    assert str(file) in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_that_runs_code_is_refused_whatever_its_protocol(
    tmp_path: Path, protocol: int
) -> None:
    marker, file = tmp_path / "ran", tmp_path / "w.pth"
    file.write_bytes(pickle.dumps({"a": RunsCommand(marker)}, protocol))
    with pytest.raises(EdgeshipError) as caught:
        read_checkpoint(file)
    assert not marker.exists()
    # protocols 0 and 1 are older than torch's reader: to it they are noise
    assert protocol < 2 or isinstance(caught.value, IntegrityRefused)


def test_a_whole_module_is_refused_since_its_class_would_run(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(IntegrityRefused, match="state_dict"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello world\n" * 9, random.Random(0).randbytes(500)],
    ids=["", "text", "noise"],
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    assert "save" in assert_refused(file)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_damage_and_no_attack(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(random.Random(seed).randbytes(300))
    assert "damaged" in assert_refused(file)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 0.95])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_that_is_cut_short_is_damaged(tmp_path: Path, kind: str, share: float) -> None:
    file = write_kind(tmp_path, kind)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    assert "damaged" in assert_refused(file)


def test_an_absent_file_and_a_directory_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.pt").mkdir()
    for name in ("a.pt", "a.safetensors", "d.pt"):
        assert_refused(tmp_path / name)


def test_another_suffix_says_which_ones_would_do(tmp_path: Path) -> None:
    text = assert_refused(tmp_path / "w.h5")
    assert ".safetensors" in text
    assert ".h5" in text
    assert "without a suffix" in assert_refused(tmp_path / "w")


@pytest.mark.parametrize("value", [{}, {"epoch": 3}, [1, 2], None, {"state_dict": {}}])
def test_a_torch_file_without_tensors_is_named(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pt")
    assert "no tensors" in assert_refused(tmp_path / "w.pt")


def test_safetensors_without_tensors_are_named(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    assert "no tensors" in assert_refused(tmp_path / "w.safetensors")


def test_a_dict_that_holds_itself_ends(tmp_path: Path) -> None:
    inner: dict[str, object] = {}
    outer = {"model": inner}
    inner["state_dict"] = outer
    torch.save(outer, tmp_path / "w.pt")
    assert "no tensors" in assert_refused(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]  # torch's
    traced.save(str(tmp_path / "w.pt"))
    assert "TorchScript" in assert_refused(tmp_path / "w.pt")


def write_kind(directory: Path, kind: str) -> Path:
    if kind == "safetensors":
        save_file(make_tensors(), directory / "w.safetensors")
        return directory / "w.safetensors"
    is_zip = kind == "zip"
    torch.save(make_tensors(), directory / "w.pt", _use_new_zipfile_serialization=is_zip)
    return directory / "w.pt"


@pytest.fixture(scope="session", params=["zip", "legacy", "safetensors"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kind(tmp_path_factory.mktemp("whole"), request.param)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(flips=FLIPS, share=st.one_of(st.just(1.0), st.floats(0, 1)))
def test_flipped_bytes_load_or_are_refused(
    whole: Path, flips: list[tuple[float, int]], share: float
) -> None:
    content = bytearray(whole.read_bytes())
    for place, byte in flips:
        content[int(place * len(content))] = byte
    file = whole.with_stem("flipped")
    file.write_bytes(content[: int(len(content) * share)])
    try:
        tensors = read_checkpoint(file)
    except (ConfigurationError, IntegrityRefused):
        return
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_every_type_of_safetensors_is_read_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = (torch.arange(6, dtype=torch.float32)[: torch.Size(shape).numel()] % 2).to(dtype)
    save_file({"a": tensor.reshape(shape)}, tmp_path / "w.safetensors")
    (found,) = read_checkpoint(tmp_path / "w.safetensors").values()
    assert found.dtype is dtype
    assert tuple(found.shape) == shape
    assert found.reshape(-1).tolist() == tensor.tolist()


def write_shards(directory: Path) -> Path:
    weight_map = {}
    for index, (name, tensor) in enumerate(make_tensors().items()):
        shard = f"model-{index + 1:05}-of-00002.safetensors"
        save_file({name: tensor}, directory / shard)
        weight_map[name] = shard
    index_file = directory / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index_file


def test_shards_are_read_by_their_index_or_their_directory(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    assert_same(read_checkpoint(index), make_tensors())
    assert_same(read_checkpoint(tmp_path), make_tensors())
    check_weights(tmp_path)
    assert [file.name for file in stored_files(index)] == [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    for path in (index, tmp_path):
        with pytest.raises(ConfigurationError, match="model-00002-of-00002"):
            read_checkpoint(path)
    with pytest.raises(ConfigurationError, match="model-00002-of-00002"):
        check_weights(tmp_path)


def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    assert "secret" in assert_refused(index)


def test_a_directory_is_read_by_its_whole_file_first(tmp_path: Path) -> None:
    torch.save({"b": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert list(read_checkpoint(tmp_path)) == ["b"]
    write_shards(tmp_path)
    assert list(read_checkpoint(tmp_path)) == ["conv.weight", "conv.bias"]
    save_file({"c": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert list(read_checkpoint(tmp_path)) == ["c"]
    assert stored_files(tmp_path) == [tmp_path / "model.safetensors"]
    check_weights(tmp_path)


def test_a_directory_without_weights_says_which_would_do(tmp_path: Path) -> None:
    assert "model.safetensors" in assert_refused(tmp_path)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (struct.pack("<Q", 10 << 30), "length of the header is impossible"),
        (struct.pack("<Q", 2**63), "length of the header is impossible"),
        (struct.pack(">Q", 72), "wrong byte order"),
    ],
)
def test_a_header_that_claims_too_much_is_refused_before_it_is_read(
    tmp_path: Path, length: bytes, words: str
) -> None:
    file = write_kind(tmp_path, "safetensors")
    content = file.read_bytes()
    file.write_bytes(length + content[8:] + bytes(100))
    assert words in assert_refused(file)


def rezip(file: Path, *, compression: int, extra: bytes = b"") -> None:
    """Write the archive again, compressed, with zeros after one of its members."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content + (extra if name.endswith("data/0") else b""))


def test_an_archive_that_inflates_out_of_proportion_is_refused(tmp_path: Path) -> None:
    file = write_kind(tmp_path, "zip")
    rezip(file, compression=zipfile.ZIP_DEFLATED, extra=bytes(50 << 20))
    assert file.stat().st_size < 100_000
    with pytest.raises(IntegrityRefused, match="claims to hold more than it can"):
        read_checkpoint(file)


def test_an_archive_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    file = write_kind(tmp_path, "zip")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("W/DATA.PKL", b"another")
    with pytest.raises(IntegrityRefused, match="one name"):
        read_checkpoint(file)


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w/data.pkl", bytes(1000))
        for index in range(100):
            copy = zipfile.ZipInfo(f"w/data/{index}")
            first = archive.filelist[0]
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.compress_size = copy.file_size = 1000
            archive.filelist.append(copy)
    with pytest.raises(IntegrityRefused, match="overlap"):
        read_checkpoint(file)


def test_a_tensor_that_claims_terabytes_by_its_strides_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "w.pt")
    with pytest.raises(IntegrityRefused, match="claim more elements"):
        read_checkpoint(tmp_path / "w.pt")


def test_a_tensor_repeated_by_its_strides_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3).expand(4, 3)}, tmp_path / "w.pt")
    assert tuple(read_checkpoint(tmp_path / "w.pt")["a"].shape) == (4, 3)


def test_a_legacy_file_that_claims_terabytes_is_damaged(tmp_path: Path) -> None:
    file = write_kind(tmp_path, "legacy")
    content = file.read_bytes()
    at = content.index(b"cpu") + 3
    assert content[at + 2 : at + 4] == b"K\x06"  # the number of elements of the first storage
    huge = b"\x8a\x06" + (1 << 44).to_bytes(6, "little")
    file.write_bytes(content[: at + 2] + huge + content[at + 4 :])
    assert_refused(file)
