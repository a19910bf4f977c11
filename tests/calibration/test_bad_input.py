"""Every kind of bad representative data is told by its own sentence, in the words of the docs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from edgeship.calibration.audit import audit_table
from edgeship.calibration.finding import notes_from_findings
from edgeship.calibration.observe import observe
from edgeship.calibration.samples import open_samples, select_samples
from edgeship.calibration.table import Table
from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.digests import file_sha256
from edgeship.errors import ConfigurationError
from edgeship.project import Factory, FactorySource, InputSection, ModelSection
from edgeship.runtimes.ort import OrtRuntime
from edgeship.vocabulary import Layout

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "bad-input.md"
SAMPLES: Final = 64
IMAGE: Final = TensorSpec(
    name="image",
    shape=(1, 3, 8, 8),
    layout=Layout.NCHW,
    preprocess=Preprocess(size=(8, 8), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
)
CONTRACT: Final = Contract(
    inputs=(IMAGE,), outputs=(TensorSpec(name="logits", shape=(1, 2, 1, 1)),)
)
NET: Final = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[1, 3, 8, 8] image) => (float[1, 2, 1, 1] logits)
{
    conv = Conv<pads = [1, 1, 1, 1]>(image, w1)
    relu = Relu(conv)
    pool = GlobalAveragePool(relu)
    logits = Conv(pool, w2)
}
"""
MODULE: Final = """\
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 8))
"""
MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD: Final = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


def pixels() -> np.ndarray:
    """uint8[64, 8, 8, 3] noise of every brightness."""
    return np.random.default_rng(4).integers(0, 256, (SAMPLES, 8, 8, 3), dtype=np.uint8)


def fractions() -> np.ndarray:
    """float32[64, 3, 8, 8] in 0..1."""
    return pixels().transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def good() -> np.ndarray:
    return (fractions() - MEAN) / STD


def with_value(value: float) -> np.ndarray:
    rows = good()
    rows[3, 1, 5, 5] = value
    return rows


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of bad data: arrays for calib.npz, and what the sentence must name."""

    arrays: Callable[[], Mapping[str, np.ndarray]]
    is_refused: bool
    names: tuple[str, ...]


def rows(make: Callable[[], np.ndarray]) -> Callable[[], Mapping[str, np.ndarray]]:
    return lambda: {"image": make()}


CASES: Final = {
    "one NaN pixel": Case(
        arrays=rows(lambda: with_value(np.nan)),
        is_refused=True,
        names=("calib.npz[3]: image", "NaN or infinity", "1 of 192 values"),
    ),
    "one infinite pixel": Case(
        arrays=rows(lambda: with_value(np.inf)),
        is_refused=True,
        names=("calib.npz[3]: image", "NaN or infinity", "1 of 192 values"),
    ),
    "all zero": Case(
        arrays=rows(lambda: np.zeros_like(good())),
        is_refused=True,
        names=("input 'image'", "every sample is blank", "0 alone"),
    ),
    "black images": Case(
        arrays=lambda: {"image": np.zeros_like(pixels())},
        is_refused=True,
        names=("input 'image'", "every sample is blank", "-2.12..-1.8"),
    ),
    "0..255, not normalised": Case(
        arrays=rows(lambda: fractions() * 255),
        is_refused=True,
        names=("input 'image'", "pixels of 0..255, not normalised", "-2.12..2.64", "0..255"),
    ),
    "normalised twice": Case(
        arrays=rows(lambda: (good() - MEAN) / STD),
        is_refused=True,
        names=("input 'image'", "normalised twice", "-2.12..2.64", "-11.4..9.9"),
    ),
    "0..1, mean and std not applied": Case(
        arrays=rows(fractions),
        is_refused=False,
        names=("input 'image'", "divided by 255 and no more", "0..1"),
    ),
    "divided by 255 twice": Case(
        arrays=rows(lambda: (fractions() / 255 - MEAN) / STD),
        is_refused=False,
        names=("input 'image'", "divided by 255 twice", "-2.12..-1.79"),
    ),
    "NHWC": Case(
        arrays=rows(lambda: good().transpose(0, 2, 3, 1)),
        is_refused=True,
        names=("calib.npz: image", "float32[3, 8, 8]", "float32[8, 8, 3]"),
    ),
    "float64": Case(
        arrays=rows(lambda: good().astype(np.float64)),
        is_refused=True,
        names=("calib.npz: image", "float32[3, 8, 8]", "float64[3, 8, 8]"),
    ),
    "another name": Case(
        arrays=lambda: {"input": good()},
        is_refused=True,
        names=("calib.npz", "image", "input"),
    ),
    "one sample": Case(
        arrays=rows(lambda: good()[:1]),
        is_refused=False,
        names=("one sample", "about 100"),
    ),
}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    proto = onnx.parser.parse_model(NET)
    for name, shape in (("w1", (4, 3, 3, 3)), ("w2", (2, 4, 1, 1))):
        weight = generator.standard_normal(shape, dtype=np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weight, name))
    file = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(proto, file)
    return file


def audited(path: Path, net: Path) -> tuple[str, ...]:
    """The notes on the data, through every step from the file on; raises what refuses it."""
    samples = open_samples(path, [IMAGE], digest=file_sha256)
    chosen = select_samples(samples.samples, 512)

    def feed() -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for index in chosen:
            yield samples.samples[index].name, samples.load(index).inputs

    with OrtRuntime().observe(net, ["image", "conv", "relu"]) as session:
        statistics = observe(feed(), session.run)
    table = Table(
        observed_sha256=file_sha256(net),
        sample_digests=[samples.samples[index].digest for index in chosen],
        preprocessing={},
        tools={},
        statistics=statistics,
    )
    return notes_from_findings(audit_table(table, CONTRACT, samples.samples))


def verdict(path: Path, net: Path) -> tuple[bool, list[str]]:
    """Whether the data was refused, and the sentences, free of the directory."""
    try:
        is_refused, lines = False, list(audited(path, net))
    except ConfigurationError as error:
        is_refused, lines = True, [str(problem) for problem in error.problems]
    return is_refused, [line.replace(f"{path.parent}/", "") for line in lines]


def told(case: Case, directory: Path, net: Path) -> tuple[bool, str]:
    path = directory / "calib.npz"
    np.savez(path, **case.arrays())  # type: ignore[arg-type]  # numpy types every keyword as the flag
    is_refused, lines = verdict(path, net)
    assert len(lines) == 1, lines
    return is_refused, lines[0]


def told_of_nan_weight(directory: Path) -> str:
    """Through the loading of a torch module whose checkpoint holds one NaN."""
    import torch
    from safetensors.torch import save_file

    from edgeship.source.imports import project_imports
    from edgeship.source.model import load_model

    (directory / "module.py").write_text(MODULE)
    weights = directory / "net.safetensors"
    tensors = {
        "0.weight": torch.ones(4, 3, 3, 3),
        "0.bias": torch.zeros(4),
        "2.weight": torch.ones(2, 4, 8, 8),
        "2.bias": torch.zeros(2),
    }
    tensors["0.weight"][1, 2, 0, 0] = torch.nan
    save_file(tensors, weights)
    source = FactorySource(
        factory=Factory(file=directory / "module.py", attribute="build"), weights=weights
    )
    image = InputSection(
        name="image", shape=IMAGE.shape, layout=IMAGE.layout, preprocess=IMAGE.preprocess
    )
    section = ModelSection(name="net", source=source, task=None, inputs=(image,), labels=None)
    with project_imports(directory), pytest.raises(ConfigurationError) as caught:
        load_model(section)
    (problem,) = caught.value.problems
    return str(problem).replace(f"{directory}/", "")


def test_good_data_raises_no_word(tmp_path: Path, net: Path) -> None:
    np.savez(tmp_path / "calib.npz", image=good())
    assert verdict(tmp_path / "calib.npz", net) == (False, [])


def test_good_pixels_raise_no_word(tmp_path: Path, net: Path) -> None:
    np.savez(tmp_path / "calib.npz", image=pixels())
    assert verdict(tmp_path / "calib.npz", net) == (False, [])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_data_is_told_by_file_tensor_and_remedy(case: Case, tmp_path: Path, net: Path) -> None:
    is_refused, sentence = told(case, tmp_path, net)
    assert is_refused is case.is_refused
    assert [name for name in case.names if name not in sentence] == [], sentence
    assert "; " in sentence  # the remedy


def test_no_two_kinds_are_told_alike(tmp_path: Path, net: Path) -> None:
    sentences: dict[str, str] = {}
    for name, case in CASES.items():
        if name not in ("one infinite pixel", "black images"):  # as one NaN, and as all zero
            directory = tmp_path / name.replace("/", "-")
            directory.mkdir()
            sentences[name] = told(case, directory, net)[1]
    assert len(set(sentences.values())) == len(sentences)


def test_black_image_files_are_named(tmp_path: Path, net: Path) -> None:
    for index in range(5):
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
    is_refused, (sentence,) = verdict(tmp_path, net)
    assert is_refused
    assert ".png" in sentence
    assert "and 2 more" in sentence


def test_a_nan_that_the_model_makes_names_sample_and_tensor(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]>\n'
        "net (float[1, 3, 8, 8] image) => (float[1, 3, 8, 8] root) { root = Sqrt(image) }"
    )
    file = tmp_path / "root.onnx"
    onnx.save(proto, file)
    samples = [(f"{index}.png", {"image": row[np.newaxis]}) for index, row in enumerate(good())]
    with (
        OrtRuntime().observe(file, ["root"]) as session,
        pytest.raises(ConfigurationError, match=r"sample 0\.png: tensor 'root' becomes NaN"),
    ):
        observe(iter(samples), session.run)


def test_a_nan_weight_is_refused_by_name(tmp_path: Path) -> None:
    sentence = told_of_nan_weight(tmp_path)
    assert "net.safetensors: 0.weight" in sentence
    assert "1 of 108" in sentence


@pytest.mark.checkout
def test_the_docs_quote_every_sentence(tmp_path: Path, net: Path) -> None:
    quoted = DOCUMENT.read_text(encoding="utf-8")
    sentences = {"a NaN weight": told_of_nan_weight(tmp_path)}
    for name, case in CASES.items():
        sentences[name] = told(case, tmp_path, net)[1]
    absent = {name: text for name, text in sentences.items() if f"| {name} |" not in quoted}
    absent |= {name: text for name, text in sentences.items() if text not in quoted}
    assert absent == {}
