import gc
import io
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeship.calibration.arrays import open_arrays
from edgeship.contract import Preprocess, TensorSpec
from edgeship.errors import ConfigurationError, ExitCode
from edgeship.vocabulary import ChannelOrder, Layout

X = TensorSpec(name="x", shape=(1, 3, 4))
IDS = TensorSpec(name="ids", shape=(1, 5), dtype="int64")
IMAGE = TensorSpec(
    name="image", shape=(1, 3, 4, 6), layout=Layout.NCHW, preprocess=Preprocess(size=(4, 6))
)
GREY = TensorSpec(
    name="image",
    shape=(1, 1, 4, 6),
    layout=Layout.NCHW,
    preprocess=Preprocess(size=(4, 6), order=ChannelOrder.GRAY, mean=(0.0,), std=(1.0,)),
)
LABEL = "label"


def rows(count: int, *shape: int, dtype: str = "float32") -> np.ndarray:
    return (np.random.default_rng(count).standard_normal((count, *shape)) * 50).astype(dtype)


def problem_of(path: Path, *specs: TensorSpec) -> str:
    with pytest.raises(ConfigurationError) as caught:
        open_arrays(path, specs, label=LABEL)
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    assert str(path.name) in str(caught.value)
    return str(caught.value)


# What is read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_each_row_of_an_npz_comes_back(tmp_path: Path, save: Callable[..., None]) -> None:
    x, ids, path = rows(7, 3, 4), rows(7, 5, dtype="int64"), tmp_path / "d.npz"
    save(path, x=x, ids=ids, label=np.arange(7), other=np.zeros(2))
    found = open_arrays(path, [X, IDS], label=LABEL)
    assert found.count == 7
    for index in (6, 0, 3):  # in any order
        assert np.array_equal(found.read("x", index), x[index])
        assert np.array_equal(found.read("ids", index), ids[index])
        assert found.read(LABEL, index) == index
    assert found.has(LABEL)
    assert not found.has("other")


def test_an_npy_is_the_one_input_whatever_its_name(tmp_path: Path) -> None:
    x = rows(4, 3, 4)
    np.save(tmp_path / "anything.npy", x)
    found = open_arrays(tmp_path / "anything.npy", [X], label=LABEL)
    assert found.count == 4
    assert not found.has(LABEL)
    assert np.array_equal(np.stack([found.read("x", index) for index in range(4)]), x)


def test_a_row_may_be_written_to(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(2, 3, 4))
    found = open_arrays(tmp_path / "x.npy", [X], label=LABEL)
    row = found.read("x", 1)
    row[:] = 0
    assert found.read("x", 1).any()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    x = rows(3, 3, 4)
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, x, version=version)
    found = open_arrays(tmp_path / "x.npy", [X], label=LABEL)
    assert np.array_equal(found.read("x", 2), x[2])


@pytest.mark.parametrize(("spec", "channels"), [(IMAGE, 3), (GREY, 1)])
def test_raw_pixels_of_an_image_input_are_uint8_hwc(
    tmp_path: Path, spec: TensorSpec, channels: int
) -> None:
    pixels = rows(3, 4, 6, channels, dtype="uint8")
    np.savez(tmp_path / "d.npz", image=pixels)
    found = open_arrays(tmp_path / "d.npz", [spec], label=LABEL)
    assert np.array_equal(found.read("image", 1), pixels[1])


def test_an_image_input_may_come_preprocessed(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=rows(3, 3, 4, 6))
    assert open_arrays(tmp_path / "d.npz", [IMAGE], label=LABEL).count == 3


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32", "<i2"])
def test_labels_are_integers_of_any_width(tmp_path: Path, dtype: str) -> None:
    np.savez(tmp_path / "d.npz", x=rows(3, 3, 4), label=np.array([2, 0, 1], dtype))
    found = open_arrays(tmp_path / "d.npz", [X], label=LABEL)
    assert [int(found.read(LABEL, index)) for index in range(3)] == [2, 0, 1]


# What is refused


def test_arrays_of_other_names_are_refused_with_those_that_are_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=rows(3, 3, 4), y=np.arange(3))
    message = problem_of(tmp_path / "d.npz", X)
    assert "images, y" in message
    assert "x" in message


def test_a_missing_array_beside_a_present_one_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=rows(3, 3, 4))
    message = problem_of(tmp_path / "d.npz", X, IDS)
    assert "d.npz: ids: the array of an input is missing: expected int64[5]" in message


def test_an_npy_for_two_inputs_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(3, 3, 4))
    assert "ids: the array of an input is missing" in problem_of(tmp_path / "x.npy", X, IDS)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (rows(3, 3, 4, dtype="float64"), "float64[3, 4]"),
        (rows(3, 3, 4, dtype="float16"), "float16[3, 4]"),
        (rows(3, 3, 4, dtype=">f4"), ">f4[3, 4]"),
        (rows(3, 3, 4, dtype="uint8"), "uint8[3, 4]"),
        (rows(3, 4, 3), "float32[4, 3]"),
        (rows(3, 12), "float32[12]"),
        (rows(3, 1, 3, 4), "float32[1, 3, 4]"),
        (rows(3), "float32[]"),
        (np.array(["a", "b"]), "<U1[]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_dtype_or_shape_is_refused(tmp_path: Path, array: np.ndarray, found: str) -> None:
    np.savez(tmp_path / "d.npz", x=array)
    message = problem_of(tmp_path / "d.npz", X)
    assert f"expected float32[3, 4] for each sample, found {found} for each sample" in message


@pytest.mark.parametrize(
    "pixels",
    [
        rows(3, 3, 4, 6, dtype="uint8"),
        rows(3, 6, 4, 3, dtype="uint8"),
        rows(3, 4, 6, 1, dtype="uint8"),
        rows(3, 4, 6, dtype="uint8"),
        rows(3, 4, 6, 3, dtype="int8"),
        rows(3, 4, 6, 3),
    ],
    ids=lambda pixels: f"{pixels.dtype}{pixels.shape[1:]}",
)
def test_raw_pixels_of_another_form_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    np.savez(tmp_path / "d.npz", image=pixels)
    assert "does not fit" in problem_of(tmp_path / "d.npz", IMAGE)


def test_differing_numbers_of_samples_are_refused_with_the_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=rows(3, 3, 4), ids=rows(4, 5, dtype="int64"), label=np.arange(5))
    assert "x 3, ids 4, label 5" in problem_of(tmp_path / "d.npz", X, IDS)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=rows(3, 4, 4), ids=rows(4, 6, dtype="int64"))
    message = problem_of(tmp_path / "d.npz", X, IDS)
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    "label",
    [
        np.eye(3, dtype=np.int64),
        np.array([[0], [1], [2]]),
        np.array([0.0, 1.5, 2.0]),
        np.array(["cat", "dog", "cow"]),
        np.array([True, False, True]),
    ],
    ids=lambda label: f"{label.dtype}{label.shape}",
)
def test_labels_that_are_no_class_numbers_are_refused(tmp_path: Path, label: np.ndarray) -> None:
    np.savez(tmp_path / "d.npz", x=rows(3, 3, 4), label=label)
    message = problem_of(tmp_path / "d.npz", X)
    assert "d.npz: label" in message
    assert str(label.dtype) in message


def test_fortran_order_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(rows(3, 3, 4)))
    assert "Fortran order True" in problem_of(tmp_path / "x.npy", X)


def test_an_array_without_a_sample_axis_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.float32(3))
    problem_of(tmp_path / "x.npy", X)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("form", ["npy", "npz", "bare pickle", "pickled member"])
def test_no_pickle_is_ever_loaded(tmp_path: Path, form: str) -> None:
    mark = tmp_path / "mark"
    objects = np.array([Trap(mark)], object)
    path = tmp_path / ("x.npy" if form in {"npy", "bare pickle"} else "x.npz")
    if form == "npy":
        np.save(path, objects)
    elif form == "npz":
        np.savez(path, x=objects)
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(Trap(mark)))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", pickle.dumps(Trap(mark)))
    problem_of(path, X)
    assert not mark.exists()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows(5, 3, 4))
    return buffer.getvalue()


def npz_bytes(*, is_compressed: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if is_compressed else np.savez)(buffer, x=rows(5, 3, 4))
    return buffer.getvalue()


CONTENTS = {
    "x.npy": npy_bytes(),
    "x.npz": npz_bytes(is_compressed=False),
    "compressed/x.npz": npz_bytes(is_compressed=True),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_truncation_is_refused(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / Path(name).name, CONTENTS[name]
    accepted = []
    for size in range(len(content)):
        path.write_bytes(content[:size])
        try:
            open_arrays(path, [X], label=LABEL)
        except ConfigurationError:
            continue
        accepted.append(size)
    assert accepted == []


@pytest.mark.parametrize("name", CONTENTS)
def test_damage_never_raises_anything_else(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / Path(name).name, CONTENTS[name]
    for position in range(len(content)):
        for mask in (0x01, 0x28):  # 0x28 makes brackets and commas of letters
            damaged = bytearray(content)
            damaged[position] ^= mask
            path.write_bytes(damaged)
            try:
                found = open_arrays(path, [X], label=LABEL)
            except ConfigurationError:
                continue
            for index in range(found.count):
                assert found.read("x", index).shape == (3, 4), (position, mask)


@pytest.mark.parametrize("name", ["x.npz", "compressed/x.npz"])
def test_damaged_values_of_an_npz_never_pass(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / "x.npz", CONTENTS[name]
    expected = rows(5, 3, 4)
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            found = open_arrays(path, [X], label=LABEL)
        except ConfigurationError:
            continue
        for index in range(found.count):
            assert np.array_equal(found.read("x", index), expected[index]), position


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"7",
        b"{",
        b"{}",
        b"(((((",
        b"{b'descr': '<f4', 'fortran_order': False, 'shape': (5, 3, 4)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (5, 3, '4')}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 3, 4)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**99, 3, 4)}",
        b"{'descr': 'nonsense', 'fortran_order': False, 'shape': (5, 3, 4)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3, 4)}",
    ],
    ids=repr,
)
def test_an_odd_header_is_refused(tmp_path: Path, header: bytes) -> None:
    size = len(header).to_bytes(2, "little")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header + bytes(240))
    problem_of(tmp_path / "x.npy", X)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    problem_of(tmp_path / "gone.npz", X)


def test_an_npz_without_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w"):
        pass
    assert "nothing" in problem_of(tmp_path / "d.npz", X)


# Resources

READ_ALL = """
import sys
from pathlib import Path
from edgeship.calibration.samples import open_samples
from edgeship.contract import TensorSpec

def peak_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

spec = TensorSpec(name="x", shape=(1, 256, 1024))
before = peak_kb()
samples = open_samples(Path(sys.argv[1]), [spec], digest=str)
for index in range(len(samples.samples)):
    samples.load(index)
print(len(samples.samples), peak_kb() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_holds_one_row_of_a_200_mb_file(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = (200, 256, 1024)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    path = tmp_path / "d.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as member,
    ):
        member.write(header.getvalue())
        for _ in range(shape[0]):
            member.write(bytes(1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, path], check=True, capture_output=True, text=True
    )
    count, grown_kb = map(int, done.stdout.split())
    assert count == 200
    assert grown_kb < 40_000


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_files_are_closed_in_good_and_in_bad(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", x=rows(2, 3, 4))
    np.savez(tmp_path / "bad.npz", x=rows(2, 4, 4))
    np.save(tmp_path / "short.npy", rows(2, 3, 4))
    content = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:-1])
    open_arrays(tmp_path / "good.npz", [X], label=LABEL)
    problem_of(tmp_path / "bad.npz", X)
    problem_of(tmp_path / "short.npy", X)
    gc.collect()
