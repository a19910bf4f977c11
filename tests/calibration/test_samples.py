import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeship.calibration.preprocess import input_from_pixels
from edgeship.calibration.samples import (
    RandomSamples,
    Sample,
    SampleSet,
    list_images,
    open_samples,
    select_samples,
)
from edgeship.contract import Preprocess, TensorSpec
from edgeship.digests import file_sha256
from edgeship.errors import ConfigurationError, ExitCode
from edgeship.vocabulary import Layout

IMAGE = TensorSpec(
    name="image",
    shape=(1, 3, 4, 6),
    layout=Layout.NCHW,
    preprocess=Preprocess(size=(4, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
)
X = TensorSpec(name="x", shape=(1, 3, 4))
IDS = TensorSpec(name="ids", shape=(1, 5), dtype="int64")


def pixels_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def save_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(seed)).save(path)


def open_images(directory: Path) -> SampleSet:
    return open_samples(directory, [IMAGE], digest=file_sha256)


def names_of(samples: SampleSet) -> list[str]:
    return [sample.name for sample in samples.samples]


def labels_of(samples: SampleSet) -> list[int | None]:
    return [sample.label for sample in samples.samples]


def refusal_of(path: Path, *specs: TensorSpec) -> str:
    with pytest.raises(ConfigurationError) as caught:
        open_samples(path, specs, digest=file_sha256)
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    return str(caught.value)


# Image folders


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for seed, name in enumerate(["b.png", "a.jpg", "c.bmp"]):
        save_image(tmp_path / name, seed)
    samples = open_images(tmp_path)
    assert names_of(samples) == ["a.jpg", "b.png", "c.bmp"]
    assert labels_of(samples) == [None, None, None]
    assert list(samples.class_names) == []


def test_sorted_names_of_class_folders_are_label_ids(tmp_path: Path) -> None:
    for name in ("dog/2.png", "cat/9.png", "dog/1.png", "Zebra/5.png", "10/a.png", "9/a.png"):
        save_image(tmp_path / name)
    samples = open_images(tmp_path)
    assert list(samples.class_names) == ["10", "9", "Zebra", "cat", "dog"]
    assert dict(zip(names_of(samples), labels_of(samples), strict=True)) == {
        "10/a.png": 0,
        "9/a.png": 1,
        "Zebra/5.png": 2,
        "cat/9.png": 3,
        "dog/1.png": 4,
        "dog/2.png": 4,
    }


def test_a_class_without_images_keeps_its_label_id(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "1.png")
    save_image(tmp_path / "c" / "1.png")
    (tmp_path / "b").mkdir()
    samples = open_images(tmp_path)
    assert list(samples.class_names) == ["a", "b", "c"]
    assert labels_of(samples) == [0, 2]


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    save_image(tmp_path / "elsewhere" / "1.png")
    save_image(tmp_path / "data" / "a" / "1.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    samples = open_images(tmp_path / "data")
    assert names_of(samples) == ["a/1.png", "b/1.png"]
    assert labels_of(samples) == [0, 1]


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", 1)
    save_image(tmp_path / "b.png", 2)
    digests = [sample.digest for sample in open_images(tmp_path).samples]
    expected = [
        hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.png", "b.png")
    ]
    assert digests == expected


def test_a_loaded_image_holds_its_pixels_and_the_input_made_of_them(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", 1)
    save_image(tmp_path / "b.png", 2)
    loaded = open_images(tmp_path).load(1)
    assert loaded.pixels is not None
    assert np.array_equal(loaded.pixels, pixels_of(2))
    assert list(loaded.inputs) == ["image"]
    assert np.array_equal(loaded.inputs["image"], input_from_pixels(pixels_of(2), IMAGE))


@pytest.mark.parametrize(
    "name",
    ["notes.txt", ".hidden.png", "._a.png", "Thumbs.db", "labels.json", "png", "movie.mp4"],
)
@pytest.mark.parametrize("folder", ["", "class"])
def test_hidden_files_and_other_kinds_are_passed_over(
    tmp_path: Path, folder: str, name: str
) -> None:
    save_image(tmp_path / folder / "a.png")
    (tmp_path / folder / name).write_bytes(b"?")
    assert len(open_images(tmp_path).samples) == 1


@pytest.mark.parametrize("name", [".thumbs/a.png", ".git/x/y.png", "class/.cache/a.png"])
def test_hidden_folders_are_passed_over(tmp_path: Path, name: str) -> None:
    save_image(tmp_path / "class" / "a.png")
    save_image(tmp_path / name)
    samples = open_images(tmp_path)
    assert names_of(samples) == ["class/a.png"]
    assert list(samples.class_names) == ["class"]


def test_a_data_folder_below_a_hidden_one_is_not_hidden(tmp_path: Path) -> None:
    save_image(tmp_path / ".cache" / "data" / "a.png")
    assert names_of(open_images(tmp_path / ".cache" / "data")) == ["a.png"]


def test_a_folder_that_is_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    save_image(tmp_path / "odd.png" / "a.png")
    samples = open_images(tmp_path)
    assert names_of(samples) == ["odd.png/a.png"]
    assert list(samples.class_names) == ["odd.png"]


@pytest.mark.parametrize("name", ["A.PNG", "a.Jpg", "a.JPEG", "a.tiff", "a.webp", "a.ppm"])
def test_suffixes_count_in_any_case(tmp_path: Path, name: str) -> None:
    save_image(tmp_path / name)
    assert names_of(open_images(tmp_path)) == [name]


@pytest.mark.parametrize(
    ("names", "odd"),
    [
        (["a.png", "class/b.png"], "class/b.png"),
        (["one/a.png", "one/two/b.png"], "one/two/b.png"),
        (["one/two/b.png"], "one/two/b.png"),
        (["a.png", "one/two/b.png"], "one/two/b.png"),
        (["train/cat/1.png", "train/dog/1.png"], "train/cat/1.png"),
    ],
)
def test_images_at_several_depths_are_refused_with_one_of_them(
    tmp_path: Path, names: list[str], odd: str
) -> None:
    for name in names:
        save_image(tmp_path / name)
    message = refusal_of(tmp_path, IMAGE)
    assert "several depths" in message
    assert odd in message


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    assert "the data is empty" in refusal_of(tmp_path, IMAGE)
    assert list_images(tmp_path)[0] == []


@pytest.mark.parametrize("specs", [[X], [IMAGE, X], [IMAGE, IMAGE]], ids=["plain", "two", "images"])
def test_a_folder_needs_a_model_with_one_image_input(
    tmp_path: Path, specs: list[TensorSpec]
) -> None:
    save_image(tmp_path / "a.png")
    assert "one image input" in refusal_of(tmp_path, *specs)


def test_a_corrupt_image_is_refused_by_name_when_it_is_loaded(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "b.png")
    content = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
    samples = open_images(tmp_path)
    samples.load(0)
    with pytest.raises(ConfigurationError, match=r"b\.png: the image cannot be decoded"):
        samples.load(1)


# Arrays


def test_rows_are_samples(tmp_path: Path) -> None:
    x = np.arange(60, dtype=np.float32).reshape(5, 3, 4)
    ids = np.arange(25).reshape(5, 5)
    np.savez(tmp_path / "d.npz", x=x, ids=ids, label=[4, 3, 2, 1, 0])
    samples = open_samples(tmp_path / "d.npz", [X, IDS], digest=file_sha256)
    assert names_of(samples) == [f"d.npz[{index}]" for index in range(5)]
    assert labels_of(samples) == [4, 3, 2, 1, 0]
    assert list(samples.class_names) == []
    loaded = samples.load(3)
    assert loaded.pixels is None
    assert np.array_equal(loaded.inputs["x"], x[3:4])
    assert np.array_equal(loaded.inputs["ids"], ids[3:4])
    assert loaded.inputs["ids"].dtype == np.int64


def test_rows_without_labels_have_none(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((2, 3, 4), np.float32))
    assert labels_of(open_samples(tmp_path / "d.npy", [X], digest=file_sha256)) == [None, None]


def test_digests_of_rows_are_those_of_their_bytes(tmp_path: Path) -> None:
    x = np.arange(36, dtype=np.float32).reshape(3, 3, 4)
    ids = np.arange(15).reshape(3, 5)
    np.savez(tmp_path / "one.npz", x=x, ids=ids)
    np.savez_compressed(tmp_path / "two.npz", ids=ids[::-1], x=x[::-1], label=[0, 1, 2])
    one = open_samples(tmp_path / "one.npz", [X, IDS], digest=file_sha256)
    two = open_samples(tmp_path / "two.npz", [X, IDS], digest=file_sha256)
    expected = [
        hashlib.sha256(x[index].tobytes() + ids[index].tobytes()).hexdigest() for index in range(3)
    ]
    assert [sample.digest for sample in one.samples] == expected
    assert [sample.digest for sample in two.samples] == expected[::-1]


def test_raw_pixels_are_preprocessed_as_those_of_an_image_file(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png", 1)
    np.savez(tmp_path / "d.npz", image=np.stack([pixels_of(0), pixels_of(1)]))
    of_array = open_samples(tmp_path / "d.npz", [IMAGE], digest=file_sha256).load(1)
    of_file = open_images(tmp_path / "images").load(0)
    assert np.array_equal(of_array.inputs["image"], of_file.inputs["image"])
    assert of_array.pixels is not None
    assert of_file.pixels is not None
    assert np.array_equal(of_array.pixels, of_file.pixels)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_refused_by_file_and_row(tmp_path: Path, bad: float) -> None:
    x = np.zeros((4, 3, 4), np.float32)
    x[2, 1, 1] = bad
    np.savez(tmp_path / "d.npz", x=x)
    samples = open_samples(tmp_path / "d.npz", [X], digest=file_sha256)
    samples.load(1)
    with pytest.raises(ConfigurationError) as caught:
        samples.load(2)
    (problem,) = caught.value.problems
    assert problem.where == "d.npz[2]: x"
    assert problem.found == "1 of 12 values (8.3 %)"


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_without_rows_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"d{suffix}"
    save: Callable[..., None] = np.save if suffix == ".npy" else np.savez
    x = np.zeros((0, 3, 4), np.float32)
    save(path, x) if suffix == ".npy" else save(path, x=x)
    assert "the data is empty" in refusal_of(path, X)


@pytest.mark.parametrize("name", ["d.h5", "d", "d.NPZ", "d.pickle"])
def test_another_kind_of_data_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert "this kind of data is not known" in refusal_of(tmp_path / name, X)


# Selection


def make_samples(contents: list[int]) -> list[Sample]:
    return [
        Sample(name=str(content), digest=hashlib.sha256(b"%d" % content).hexdigest(), label=None)
        for content in contents
    ]


def selected(samples: list[Sample], count: int) -> list[str]:
    return [samples[index].name for index in select_samples(samples, count)]


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 45), st.integers())
def test_selection_does_not_depend_on_the_order_of_the_listing(
    contents: set[int], count: int, seed: int
) -> None:
    samples = make_samples(sorted(contents))
    shuffled = random.Random(seed).sample(samples, len(samples))
    assert selected(shuffled, count) == selected(samples, count)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    st.sets(st.integers(0, 1000), min_size=1, max_size=40),
    st.sets(st.integers(2000, 3000), max_size=10),
    st.integers(1, 45),
)
def test_samples_that_are_added_only_displace_the_last_ones(
    old: set[int], new: set[int], count: int
) -> None:
    before = selected(make_samples(sorted(old)), count)
    after = selected(make_samples(sorted(old | new)), count)
    kept = [name for name in after if int(name) in old]
    assert kept == before[: len(kept)]
    assert len(before) - len(kept) <= len(new)


def test_selection_is_in_digest_order_and_at_most_all() -> None:
    samples = make_samples(list(range(30)))
    chosen = select_samples(samples, 99)
    digests = [samples[index].digest for index in chosen]
    assert digests == sorted(digests)
    assert sorted(chosen) == list(range(30))
    assert select_samples(samples, 4) == chosen[:4]
    assert select_samples([], 4) == []


def test_duplicates_are_all_selected_once() -> None:
    samples = make_samples([7, 7, 7, 3])
    assert sorted(select_samples(samples, 4)) == [0, 1, 2, 3]


def test_classes_are_mixed() -> None:
    samples = [
        Sample(name=f"{label}/{index}", digest=hashlib.sha256(b"%d" % key).hexdigest(), label=label)
        for key, (label, index) in enumerate((label, i) for label in range(4) for i in range(100))
    ]
    chosen = [samples[index].label for index in select_samples(samples, 100)]
    # 25 of each are expected; below 10 of one is 3.9 standard deviations of the hypergeometric
    assert min(chosen.count(label) for label in range(4)) >= 10


# Samples without data


def test_random_samples_are_the_same_each_time() -> None:
    specs = [X, TensorSpec(name="y", shape=(1, 1000))]
    one, other = RandomSamples(specs=specs, count=3), RandomSamples(specs=specs, count=3)
    assert names_of(one) == ["random[0]", "random[1]", "random[2]"]
    for index in range(3):
        first, second = one.load(index).inputs, other.load(index).inputs
        assert {name: value.shape for name, value in first.items()} == {
            "x": (1, 3, 4),
            "y": (1, 1000),
        }
        for name, value in first.items():
            assert value.dtype == np.float32
            assert np.array_equal(value, second[name])
    assert not np.array_equal(one.load(0).inputs["y"], one.load(1).inputs["y"])
    # mean of 1000 standard normals: 5 standard deviations
    assert abs(float(one.load(0).inputs["y"].mean())) < 5 / 1000**0.5
