from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import gguf
import numpy as np
import pytest

from edgeship.artifact import RuntimeNeed
from edgeship.contract import Contract, TensorSpec
from edgeship.digests import file_sha256
from edgeship.errors import ExportFailed, Problem
from edgeship.exporters.gguf.architectures import ARCHITECTURES
from edgeship.exporters.gguf.exporter import GgufExporter
from edgeship.exporters.protocol import Lowered, Recipe, Request, Source
from edgeship.project import Factory, FactorySource, FileSource, ModelSection, Rule
from edgeship.runtimes.llama import LlamaRuntime
from edgeship.source.model import Model
from edgeship.targets import Target, load_target
from edgeship.vocabulary import Format, Role

HERE: Final = Path(__file__).parent
checkpoints = SimpleNamespace(**run_path(str(HERE / "checkpoints.py")))
tokenizers = SimpleNamespace(**run_path(str(HERE / "llama_tokenizer.py")))

TEXTS: Final = ("the quick brown fox", "a story  that nobody told\n")
CONTRACT: Final = Contract(
    inputs=(TensorSpec(name="input_ids", shape=(1, 16), dtype="int64"),),
    outputs=(TensorSpec(name="logits", shape=(1, 16, tokenizers.VOCABULARY)),),
)


def write_llama(directory: Path, *, hidden: int = 256, shards: int = 2) -> Path:
    shape = checkpoints.Shape(
        hidden=hidden, ffn=2 * hidden, layers=2, vocabulary=tokenizers.VOCABULARY
    )
    checkpoints.write_llama(directory, shape, shards=shards)
    tokenizers.write_tokenizer(directory)
    return directory


def change_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("exporter") / "hf")


@pytest.fixture(scope="session")
def target() -> Target:
    return load_target("raspberry-pi-5")


@pytest.fixture(scope="session")
def lowered(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    found = GgufExporter().lower(source_of(llama), tmp_path_factory.mktemp("lowered"))
    return replace(found, checkpoint=llama)


def source_of(directory: Path) -> Source:
    """A source whose model is asked for its contract alone."""
    from torch import nn

    def load() -> Model:
        return Model(module=nn.Identity(), contract=CONTRACT)

    return Source(load=load, read_probes=list, checkpoint=directory, texts=TEXTS)


def problems_of(
    source: FactorySource | FileSource,
    target: Target,
    *,
    precision: str = "q4_k_m",
    rules: Sequence[Rule] = (),
    is_strict: bool = False,
    converter: Path | None = None,
) -> list[Problem]:
    section = ModelSection(name="m", source=source, task=None, inputs=(), labels=None)
    recipe = Recipe(
        precision=precision, rules=tuple(rules), is_strict=is_strict, converter=converter
    )
    return list(GgufExporter().problems(Request(model=section, target=target, recipe=recipe)))


def hf(directory: Path) -> FileSource:
    return FileSource(kind="hf", path=directory)


def test_a_llama_has_no_problems_at_any_precision(llama: Path, target: Target) -> None:
    for precision in ("f16", "q8_0", "q4_0", "iq4_xs", "q4_k_m"):
        assert problems_of(hf(llama), target, precision=precision, is_strict=True) == []


def test_a_torch_factory_and_an_onnx_file_are_told_what_gguf_is_made_of(
    tmp_path: Path, target: Target
) -> None:
    factory = Factory(file=tmp_path / "model.py", attribute="build")
    sources: list[FactorySource | FileSource] = [
        FactorySource(factory=factory, weights=tmp_path / "weights.safetensors"),
        FileSource(kind="onnx", path=tmp_path / "model.onnx"),
        FileSource(kind="program", path=tmp_path / "model.pt2"),
    ]
    for source in sources:
        (problem,) = problems_of(source, target)
        assert problem.where == "edgeship.toml: model"
        assert "Hugging Face directories" in problem.what
        assert "save_pretrained" in str(problem.remedy)


def test_an_unknown_architecture_is_told_the_known_ones_and_the_way_round(
    tmp_path: Path, target: Target
) -> None:
    directory = write_llama(tmp_path / "hf")
    change_config(directory, architectures=["Phi3ForCausalLM"], model_type="phi3")
    (problem,) = problems_of(hf(directory), target)
    assert problem.found == "Phi3ForCausalLM"
    assert problem.expected == ", ".join(ARCHITECTURES)
    assert 'converter = "PATH/convert_hf_to_gguf.py"' in str(problem.remedy)


def test_with_a_converter_the_architecture_is_the_script_s_affair(
    tmp_path: Path, target: Target
) -> None:
    directory = write_llama(tmp_path / "hf")
    change_config(directory, architectures=["Phi3ForCausalLM"], model_type="phi3")
    script = tmp_path / "convert_hf_to_gguf.py"
    assert problems_of(hf(directory), target, converter=script) == []
    onnx = FileSource(kind="onnx", path=tmp_path / "model.onnx")
    assert len(problems_of(onnx, target, converter=script)) == 1


def test_a_shard_that_the_index_names_and_nobody_fetched_is_a_problem(
    tmp_path: Path, target: Target
) -> None:
    directory = write_llama(tmp_path / "hf")
    (directory / "model-00002-of-00002.safetensors").unlink()
    (problem, *_) = problems_of(hf(directory), target)
    assert "model-00002-of-00002.safetensors" in f"{problem.where} {problem.what} {problem.found}"


def test_an_index_that_is_no_json_is_a_problem(tmp_path: Path, target: Target) -> None:
    directory = write_llama(tmp_path / "hf")
    (directory / "model.safetensors.index.json").write_text('{"weight_map": ')
    (problem,) = problems_of(hf(directory), target)
    assert "model.safetensors.index.json" in problem.where


def test_strict_refuses_widths_that_no_block_divides_and_only_those(
    tmp_path: Path, target: Target
) -> None:
    directory = write_llama(tmp_path / "hf", hidden=96)
    assert problems_of(hf(directory), target, precision="q4_k_m") == []
    assert problems_of(hf(directory), target, precision="q8_0", is_strict=True) == []
    found = problems_of(hf(directory), target, precision="q4_k_m", is_strict=True)
    assert {problem.where for problem in found} == {"edgeship.toml: targets.raspberry-pi-5.gguf"}
    assert {problem.found for problem in found} == {"rows of 96", "rows of 192"}


def test_rules_and_an_unknown_precision_are_told_together(llama: Path, target: Target) -> None:
    rule = Rule(match="model.layers.0.*", precision="f16")
    found = problems_of(hf(llama), target, precision="q3_k_m", rules=[rule])
    assert any(problem.where.endswith("gguf.rules") for problem in found)
    assert any("q3_k_m" in f"{problem.what} {problem.found}" for problem in found)


def test_lowered_is_the_blueprint_with_its_tokens_proven(lowered: Lowered) -> None:
    value = json.loads(lowered.file.read_bytes())
    assert value["architecture"] == "llama"
    assert ["output.weight", [tokenizers.VOCABULARY, 256], "lm_head.weight"] in value["tensors"]
    assert lowered.sha256 == file_sha256(lowered.file)
    assert (lowered.runtime, lowered.contract) == ("llama.cpp", CONTRACT)
    assert any(note.startswith("tokens as llama.cpp makes them equal") for note in lowered.notes)


def test_lowering_twice_gives_the_same_bytes(llama: Path, lowered: Lowered, tmp_path: Path) -> None:
    assert GgufExporter().lower(source_of(llama), tmp_path).sha256 == lowered.sha256


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    directory = write_llama(tmp_path / "hf")
    (directory / "tokenizer.model").write_bytes(checkpoints.sentencepiece_model())  # 512 tokens
    with pytest.raises(ExportFailed, match="into other tokens than the tokenizer does"):
        GgufExporter().lower(source_of(directory), tmp_path)


def test_emitted_file_has_its_type_and_runs(
    lowered: Lowered, target: Target, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    payload = GgufExporter().emit(
        lowered,
        None,
        Recipe(precision="q4_k_m", context=128),
        target,
        tmp_path,
        progress=lambda done, total: told.append((done, total)),
    )
    assert payload.files == {"model.gguf": Role.MODEL}
    assert payload.contract == CONTRACT
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == "Q4_K"
    weights = sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    assert told[-1] == (weights, weights)
    assert all(total == weights for _, total in told)
    assert told == sorted(told)
    session = LlamaRuntime().open(tmp_path / "model.gguf")
    ids = session.tokenize(TEXTS[0])
    assert np.isfinite(session.logits(ids)).all()
    session.close()


def test_payload_says_bits_memory_and_what_the_board_needs(
    lowered: Lowered, target: Target, tmp_path: Path
) -> None:
    recipe = Recipe(precision="q4_k_m", context=128)
    payload = GgufExporter().emit(lowered, None, recipe, target, tmp_path)
    tensors = gguf.GGUFReader(tmp_path / "model.gguf").tensors
    size = sum(int(tensor.n_bytes) for tensor in tensors)
    weights = sum(int(tensor.n_elements) for tensor in tensors)
    bits, memory = payload.notes
    assert bits == f"{8 * size / weights:.2f} bits per weight"
    assert memory.startswith("memory at 128 tokens: ")
    assert payload.requires.memory_bytes is not None
    assert payload.requires.memory_bytes > size
    version = target.formats[Format.GGUF].runtimes[0].version
    assert payload.requires.any_of == (RuntimeNeed(runtime="llama.cpp", min=version),)


def test_widths_that_no_block_divides_are_a_note(tmp_path: Path, target: Target) -> None:
    directory = write_llama(tmp_path / "hf", hidden=96)
    found = GgufExporter().lower(source_of(directory), tmp_path)
    recipe = Recipe(precision="q4_k_m")
    exporter = GgufExporter()
    payload = exporter.emit(replace(found, checkpoint=directory), None, recipe, target, tmp_path)
    assert any("Q5_0 instead of Q4_K" in note for note in payload.notes)


def test_emitting_twice_gives_the_same_bytes(
    lowered: Lowered, target: Target, tmp_path: Path
) -> None:
    digests = set()
    for name in ("one", "two"):
        recipe = Recipe(precision="q4_0")
        GgufExporter().emit(lowered, None, recipe, target, tmp_path / name)
        digests.add(file_sha256(tmp_path / name / "model.gguf"))
    assert len(digests) == 1
