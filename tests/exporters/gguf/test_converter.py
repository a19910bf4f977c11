from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeship.contract import Contract
from edgeship.errors import ExportFailed
from edgeship.exporters.gguf.converter import convert, converter_files, converter_sha256
from edgeship.exporters.gguf.exporter import GgufExporter
from edgeship.exporters.gguf.file_types import file_type_named
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.library import Ggml
from edgeship.exporters.gguf.quantizer import quantize_file
from edgeship.exporters.protocol import Lowered, Payload, Recipe, Source
from edgeship.runtimes.llama import LlamaSession
from edgeship.source.model import Model
from edgeship.targets import load_target

HERE: Final = Path(__file__).parent
checkpoints = SimpleNamespace(**run_path(str(HERE / "checkpoints.py")))
tokenizers = SimpleNamespace(**run_path(str(HERE / "llama_tokenizer.py")))

VARIABLE: Final = "EDGESHIP_LLAMA_CPP"
TOOLS: Final = Path(os.environ.get(VARIABLE, HERE.parents[2] / ".cache/llama.cpp"))
SCRIPT: Final = TOOLS / "convert_hf_to_gguf.py"
Floats = NDArray[np.float32]

needs_script = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCRIPT.exists(), reason="needs llama.cpp's script: make fixtures"),
]


def write_script(directory: Path, body: str) -> Path:
    """A stand-in for the script, which takes the same arguments."""
    script = directory / "convert_hf_to_gguf.py"
    script.write_text(f"import sys, pathlib\nout = pathlib.Path(sys.argv[-1])\n{body}\n")
    return script


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    directory: Path = checkpoints.write_llama(tmp_path / "hf", checkpoints.Shape(layers=1))
    return directory


def test_the_script_is_asked_for_a_type_that_holds_every_weight(tmp_path: Path) -> None:
    script = write_script(tmp_path, "out.write_text(sys.argv[3])")
    for element, outtype in (("BF16", "bf16"), ("F16", "f32"), ("F32", "f32")):
        shape = checkpoints.Shape(layers=1)
        directory = checkpoints.write_llama(tmp_path / element, shape, element=element)
        convert(script, directory, tmp_path / "float.gguf", file_type_named("q4_0"))
        assert (tmp_path / "float.gguf").read_text() == outtype


def test_a_script_that_fails_is_told_with_its_last_lines(hf: Path, tmp_path: Path) -> None:
    body = "print('first\\n' * 9, 'Model Odd is not supported', file=sys.stderr)\nsys.exit(3)"
    script = write_script(tmp_path, body)
    with pytest.raises(ExportFailed) as caught:
        convert(script, hf, tmp_path / "float.gguf", file_type_named("q4_0"))
    (problem,) = caught.value.problems
    assert "with status 3" in problem.what
    assert str(problem.found).endswith("Model Odd is not supported")
    assert str(problem.found).count("first") < 9


def test_a_script_that_writes_nothing_is_an_error(hf: Path, tmp_path: Path) -> None:
    script = write_script(tmp_path, "")
    with pytest.raises(ExportFailed, match="wrote nothing"):
        convert(script, hf, tmp_path / "float.gguf", file_type_named("q4_0"))


def test_the_script_may_not_ask_the_hub(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    script = write_script(tmp_path, "import os; out.write_text(os.environ['HF_HUB_OFFLINE'])")
    convert(script, hf, tmp_path / "float.gguf", file_type_named("q4_0"))
    assert (tmp_path / "float.gguf").read_text() == "1"


def test_a_disk_without_room_for_both_files_is_refused_before_the_script_runs(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = write_script(tmp_path, "out.write_text('ran')")
    file, file_type = tmp_path / "float.gguf", file_type_named("q8_0")
    weights = sum(
        int(np.prod(shape)) for _, shape in checkpoints.tensor_shapes(checkpoints.Shape(layers=1))
    )
    needed = 2 * weights + round(weights * 8.5 / 8)  # bf16 and Q8_0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(ExportFailed, match="disk is too small"):
        convert(script, hf, file, file_type)
    assert not file.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    convert(script, hf, file, file_type)


def test_identity_is_of_the_script_and_the_modules_beside_it(tmp_path: Path) -> None:
    script = write_script(tmp_path, "")
    (tmp_path / "other.py").write_text("")
    before = converter_sha256(script)
    module = tmp_path / "conversion" / "phi.py"
    module.parent.mkdir()
    module.write_text("a = 1\n")
    after = converter_sha256(script)
    assert converter_files(script) == (script, module)
    module.write_text("a = 2\n")
    assert len({before, after, converter_sha256(script)}) == 3


def write_float_file(file: Path, tensors: Mapping[str, Floats]) -> Path:
    """A Llama of one layer without a vocabulary, enough for the quantizer."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(64)
    writer.add_tokenizer_model("no_vocab")
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def random_tensors() -> dict[str, Floats]:
    generator = np.random.default_rng(3)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = {f"blk.0.{name}.weight": generator.standard_normal((256, 256)) for name in names}
    tensors["token_embd.weight"] = generator.standard_normal((64, 256))
    norms = ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")
    tensors |= {name: generator.standard_normal(256) for name in norms}
    return {name: values.astype(np.float32) for name, values in tensors.items()}


def test_quantized_tensors_are_those_of_ggml_s_kernels_with_and_without_importance(
    tmp_path: Path,
) -> None:
    tensors = random_tensors()
    source = write_float_file(tmp_path / "float.gguf", tensors)
    name, file_type = "blk.0.attn_q.weight", file_type_named("q4_k_m")
    weights = np.random.default_rng(4).exponential(1.0, 256).astype(np.float32)
    for importance in (None, weights):
        table = {} if importance is None else {name: importance}
        file = tmp_path / "quantized.gguf"
        quantize_file(source, file, file_type, threads=2, importance=table)
        found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}[name]
        expected = np.empty((256, Kind.Q4_K.row_bytes(256)), np.uint8)
        Ggml().quantize(Kind.Q4_K, tensors[name], importance, expected)
        assert found.tensor_type.name == "Q4_K"
        assert found.data.tobytes() == expected.tobytes()


def test_the_quantizer_tells_of_each_tensor(tmp_path: Path) -> None:
    source = write_float_file(tmp_path / "float.gguf", random_tensors())
    told: list[tuple[int, int]] = []
    quantize_file(
        source,
        tmp_path / "quantized.gguf",
        file_type_named("q8_0"),
        threads=1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(number, 11) for number in range(1, 12)]


def test_a_file_that_cannot_be_quantized_is_told_in_llama_cpp_s_words(tmp_path: Path) -> None:
    source = tmp_path / "float.gguf"
    source.write_bytes(b"not a model")
    with pytest.raises(ExportFailed) as caught:
        quantize_file(source, tmp_path / "out.gguf", file_type_named("q4_0"), threads=1)
    (problem,) = caught.value.problems
    assert problem.found is not None
    assert not problem.found.startswith("status")


@dataclass(frozen=True, kw_only=True)
class Phi:
    """A model whose architecture this package does not read, and its float logits."""

    directory: Path
    lowered: Lowered
    ids: tuple[int, ...]
    logits: Floats


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> Phi:
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    directory = tmp_path_factory.mktemp("phi") / "hf"
    torch.manual_seed(0)
    config = Phi3Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=tokenizers.VOCABULARY,
        max_position_embeddings=256,
        initializer_range=0.2,  # so that one token stands out
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model: Any = Phi3ForCausalLM(config).bfloat16()
    model.save_pretrained(directory)
    tokenizers.write_tokenizer(directory)
    ids = (1, *range(270, 290), *range(5, 320, 15))
    with torch.no_grad():
        logits = model.float()(torch.tensor([ids])).logits[0].numpy()
    contract = Contract(inputs=(), outputs=())
    source = Source(
        load=lambda: Model(module=model, contract=contract),
        read_probes=list,
        checkpoint=directory,
        texts=("the quick brown fox",),
        converter=SCRIPT,
    )
    lowered = GgufExporter().lower(source, tmp_path_factory.mktemp("lowered"))
    return Phi(
        directory=directory,
        lowered=replace(lowered, checkpoint=directory),
        ids=ids,
        logits=logits,
    )


def unwanted_model() -> Model:
    pytest.fail("asked for the float model")


def emitted(phi: Phi, directory: Path, precision: str, *, is_strict: bool = False) -> Payload:
    recipe = Recipe(precision=precision, converter=SCRIPT, is_strict=is_strict)
    target = load_target("raspberry-pi-5")
    return GgufExporter().emit(phi.lowered, None, recipe, target, directory)


class TestPhi:
    pytestmark = needs_script

    def test_its_tokens_are_proven_and_the_script_is_named(self, phi: Phi) -> None:
        made, proven, *_ = phi.lowered.notes
        assert made.startswith("convert_hf_to_gguf.py made the file")
        assert converter_sha256(SCRIPT)[:12] in made
        assert proven.startswith("tokens as llama.cpp makes them equal the tokenizer's on")
        assert [file.name for file in phi.lowered.file.parent.iterdir()] == ["converter.json"]

    def test_it_runs_in_llama_cpp_as_in_torch(self, phi: Phi, tmp_path: Path) -> None:
        payload = emitted(phi, tmp_path, "f16")
        assert [file.name for file in tmp_path.iterdir()] == list(payload.files) == ["model.gguf"]
        session = LlamaSession(tmp_path / "model.gguf", is_exact=True)
        own = session.logits(phi.ids)
        session.close()
        assert (own.argmax(1) == phi.logits.argmax(1)).all()
        # llama.cpp rounds what enters a float16 matrix to float16: 2**-12 of each of the ten
        # products on the way, which random layers amplify a few times
        assert np.abs(own - phi.logits).mean() < 4 * 10 * 2**-12 * phi.logits.std()
        assert not any("importance" in note for note in payload.notes)

    def test_widths_that_no_block_divides_are_notes_and_memory_is_forecast(
        self, phi: Phi, tmp_path: Path
    ) -> None:
        payload = emitted(phi, tmp_path, "q4_k_m")
        tensors = gguf.GGUFReader(tmp_path / "model.gguf").tensors
        kinds = [tensor.tensor_type.name for tensor in tensors]
        for kind in ("Q5_0", "Q8_0"):  # llama.cpp's fallbacks of Q4_K and Q6_K
            told = [note for note in payload.notes if f"{kind} instead of" in note]
            assert sum(int(note.split()[0]) for note in told) == kinds.count(kind)
        assert "quantized without an importance matrix" in payload.notes
        size = sum(int(tensor.n_bytes) for tensor in tensors)
        assert payload.requires.memory_bytes is not None
        assert payload.requires.memory_bytes > size
        assert any(note.startswith("memory at 256 tokens") for note in payload.notes)

    def test_strict_refuses_them_and_leaves_no_float_file(self, phi: Phi, tmp_path: Path) -> None:
        with pytest.raises(ExportFailed, match="Q5_0 instead of Q4_K"):
            emitted(phi, tmp_path, "q4_k_m", is_strict=True)
        assert not (tmp_path / "float.gguf").exists()

    def test_an_architecture_that_the_script_does_not_know_is_an_error(
        self, phi: Phi, tmp_path: Path
    ) -> None:
        directory = Path(shutil.copytree(phi.directory, tmp_path / "hf"))
        config = (directory / "config.json").read_text()
        (directory / "config.json").write_text(config.replace("Phi3ForCausalLM", "OddForCausalLM"))
        source = Source(load=unwanted_model, read_probes=list, checkpoint=directory)
        with pytest.raises(ExportFailed, match="OddForCausalLM is not supported"):
            GgufExporter().lower(replace(source, converter=SCRIPT), tmp_path)
