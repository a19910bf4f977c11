import os
import pickle
import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from edgeship.errors import ConfigurationError, EdgeshipError, IntegrityRefused
from edgeship.source.checkpoint import read_checkpoint, without_prefixes

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
    assert "damaged" in assert_refused(file)


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
