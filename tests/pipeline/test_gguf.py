"""A language model goes the whole way to GGUF, and what may stop it on the way."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest

from edgeship.artifact import read_artifact
from edgeship.cli import main
from edgeship.vocabulary import Metric, Rung

pytestmark = pytest.mark.slow

TESTS: Final = Path(__file__).parents[1]
checkpoints = SimpleNamespace(**run_path(str(TESTS / "exporters/gguf/checkpoints.py")))
tiny = SimpleNamespace(**run_path(str(TESTS / "tiny_text_models.py")))

BOARD: Final = "build/raspberry-pi-5"
TYPES: Final = ("q4_0", "iq4_nl", "f16")
WORDS: Final = ("kalomi", "tenursha", "pelqui", "voren", "mitenur", "urvorka", "enshami", "lopel")
CONTEXT: Final = 256
PROJECT: Final = """\
[model]
name = "tiny"
hf = "hf"
task = "text-generation"
[model.inputs.text]
tokenizer = "."
length = 64
[evaluation]
data = "test.txt"
metric = "perplexity"
"""
CALIBRATED: Final = PROJECT + '[calibration]\ndata = "calibration.txt"\n'
ENCODER: Final = PROJECT.replace("text-generation", "feature-extraction").replace(
    "perplexity", "cosine"
)
BITS: Final = re.compile(
    r"(?:all weights together: )?([\d.]+) bits per weight(?: instead of [\d.]+)?"
)
NOTE: Final = re.compile(
    r"importance matrix (taken|not taken): KL divergence from the float model (\d\.\d+) with it, "
    r"(\d\.\d+) without \((\d+) tokens"
)


def text(seed: int, paragraphs: int) -> str:
    """Words of which each hints at the next, so that a model has something to learn."""
    follows = np.random.default_rng(1).dirichlet(np.full(len(WORDS), 0.3), len(WORDS))
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(paragraphs):
        chosen = [int(generator.integers(len(WORDS)))]
        while len(chosen) < 50:
            chosen.append(int(generator.choice(len(WORDS), p=follows[chosen[-1]])))
        lines.append(" ".join(WORDS[index] for index in chosen))
    return "\n\n".join(lines)


@cache
def pieces() -> bytes:
    """A SentencePiece model that leaves spaces as they are, as Llama's does."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(text(2, 60).split("\n\n")),
        model_writer=model,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def vocabulary_size() -> int:
    from sentencepiece import SentencePieceProcessor

    return int(SentencePieceProcessor(model_proto=pieces()).vocab_size())


def write_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.model").write_bytes(pieces())
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def train_llama(directory: Path) -> None:
    """Until it knows which word follows; three shards in bfloat16."""
    import torch
    from sentencepiece import SentencePieceProcessor
    from transformers import LlamaConfig, LlamaForCausalLM

    ids = SentencePieceProcessor(model_proto=pieces()).encode(text(3, 200))
    tokens = torch.tensor(ids)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=vocabulary_size(),
            max_position_embeddings=CONTEXT,
        )
        model: Any = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(60):
            starts = torch.randint(len(ids) - 63, (16,))
            batch = torch.stack([tokens[at : at + 63] for at in starts.tolist()])
            batch = torch.cat([torch.full((16, 1), 1), batch], dim=1)  # BOS
            optimizer.zero_grad()
            model(input_ids=batch, labels=batch).loss.backward()
            optimizer.step()
    model.bfloat16().save_pretrained(directory, max_shard_size="100KB")
    write_tokenizer(directory)


def write_project(
    directory: Path, types: Sequence[str], base: str = PROJECT, more: str = ""
) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "calibration.txt").write_text(text(4, 60))
    (directory / "test.txt").write_text(text(5, 12))
    board = f"[targets.raspberry-pi-5]\nformats = ['gguf']\ngguf.precisions = {list(types)}\n"
    (directory / "edgeship.toml").write_text(base + board + more)
    return directory


def build(directory: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["build", "-q", "--json", "-p", str(directory / "edgeship.toml")])
    return code, json.loads(capsys.readouterr().out)


def edit(file: Path, old: str, new: str) -> None:
    text_before = file.read_text()
    assert old in text_before
    file.write_text(text_before.replace(old, new))


def artifact(directory: Path, precision: str) -> Path:
    return directory / BOARD / f"gguf-{precision}"


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below."""
    paths = sorted(directory.rglob("*"))
    return {str(p.relative_to(directory)): p.read_bytes() for p in paths if p.is_file()}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model in three types, once."""
    directory = write_project(tmp_path_factory.mktemp("gguf") / "project", TYPES, CALIBRATED)
    train_llama(directory / "hf")
    assert main(["build", "-q", "-p", str(directory / "edgeship.toml")]) == 0
    return directory


@pytest.fixture
def project_of_gguf(template: Path, tmp_path: Path) -> Path:
    """A copy of it, its stage cache included."""
    return Path(shutil.copytree(template, tmp_path / "project", symlinks=True))


@pytest.mark.parametrize("precision", TYPES)
def test_manifest_says_what_the_file_is_and_what_it_takes(template: Path, precision: str) -> None:
    directory = artifact(template, precision)
    manifest = read_artifact(directory).manifest
    names = {file.name for file in manifest.files}
    assert {"model.gguf", "golden/golden.json"} <= names
    assert names | {"manifest.json"} == contents(directory).keys()
    assert [item.shape for item in manifest.contract.inputs] == [(1, 64), (1, 64)]
    (given,) = manifest.contract.outputs
    assert (given.name, given.shape) == ("logits", (1, 64, vocabulary_size()))
    assert [need.runtime for need in manifest.requires.any_of] == ["llama.cpp"]
    size = (directory / "model.gguf").stat().st_size
    assert manifest.requires.memory_bytes is not None
    assert manifest.requires.memory_bytes > size
    (bits,) = [found[1] for note in manifest.notes if (found := BITS.fullmatch(note))]
    weights = vocabulary_size() * 64 * 2 + 2 * (64 * 64 * 3 + 64 * 128 * 3)
    # what is no weight, names and the vocabulary, is below 20 kB here
    assert 0 < size - float(bits) * weights / 8 < 20_000
    (memory,) = [note for note in manifest.notes if note.startswith("memory at")]
    assert memory.startswith(f"memory at {CONTEXT} tokens: ")
    assert [note for note in manifest.notes if "tokens as llama.cpp makes them" in note]


@pytest.mark.parametrize("precision", TYPES)
def test_evidence_holds_perplexity_of_both_and_what_is_between(
    template: Path, precision: str
) -> None:
    (evidence,) = read_artifact(artifact(template, precision)).manifest.evidence
    metrics = evidence.metrics
    assert evidence.rung is Rung.MATCHES
    assert evidence.where["runtime"] == "llama-cpp-python"
    assert evidence.samples > 500
    # it has learnt: guessing among eight words alone would give 8
    assert 1 < metrics[Metric.REFERENCE_PERPLEXITY] < 8
    assert metrics[Metric.AGREEMENT] > 0.9
    assert 0 <= metrics[Metric.KLD] < 0.1
    if precision == "f16":
        assert metrics[Metric.AGREEMENT] >= 0.995
        assert metrics[Metric.KLD] < 1e-5
        expected = pytest.approx(metrics[Metric.REFERENCE_PERPLEXITY], rel=1e-3)
        assert metrics[Metric.PERPLEXITY] == expected


def test_a_second_build_does_no_work_and_imports_no_vendor_package(project_of_gguf: Path) -> None:
    before = contents(project_of_gguf / "build")
    script = (
        "import sys; from edgeship.cli import main\n"
        "assert main(['build', '-q', '-p', sys.argv[1]]) == 0\n"
        "print('modules:', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(project_of_gguf / "edgeship.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "everything was up to date" in done.stdout
    loaded = set(done.stdout.split("modules:")[-1].split())
    assert not {"torch", "transformers", "llama_cpp", "numba"} & loaded
    assert contents(project_of_gguf / "build") == before


@pytest.mark.parametrize("precision", TYPES)
def test_a_board_gets_the_golden_tokens(template: Path, precision: str) -> None:
    from llama_cpp import Llama

    directory = artifact(template, precision)
    pack = json.loads((directory / "golden/golden.json").read_bytes())
    llama: Any = Llama(
        str(directory / "model.gguf"),
        n_ctx=CONTEXT,
        n_threads=1,
        logits_all=True,
        flash_attn=True,
        verbose=False,
    )

    def read(entry: dict[str, Any]) -> list[int]:
        raw = (directory / "golden" / entry["file"]).read_bytes()
        values = np.frombuffer(raw, entry["dtype"]).reshape(entry["shape"])
        return [int(value) for value in values[0]]

    for case in pack["cases"]:
        (prompt,) = case["inputs"]
        own, _, model, _ = case["expect"]
        assert [(item["of"], item["name"]) for item in case["expect"]] == [
            ("artifact-on-host", "tokens"),
            ("artifact-on-host", "logprobs"),
            ("float-model", "tokens"),
            ("float-model", "logprobs"),
        ]
        assert own["compare"]["kind"] == model["compare"]["kind"] == "tokens"
        given: list[int] = []
        llama.reset()
        llama.eval(read(prompt))
        while len(given) < 32:
            given.append(int(llama.scores[llama.n_tokens - 1].argmax()))
            llama.eval(given[-1:])
        assert given == read(own), case["id"]
    llama.close()


def test_bytes_do_not_depend_on_directory_or_hash_seed(template: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "another name"
    shutil.copytree(template, other, ignore=shutil.ignore_patterns("build", ".edgeship"))
    subprocess.run(
        [sys.executable, "-m", "edgeship", "build", "--quiet"],
        cwd=other,
        env={**os.environ, "PYTHONHASHSEED": "4242", "TZ": "Pacific/Auckland"},
        check=True,
        capture_output=True,
    )
    one, two = contents(template / "build"), contents(other / "build")
    assert one.keys() == two.keys()
    apart = [name for name in one if one[name] != two[name] and "manifest" not in name]
    assert not apart
    for precision in TYPES:
        first, second = (read_artifact(artifact(d, precision)) for d in (template, other))
        assert first.manifest.artifact_id == second.manifest.artifact_id
    for name, raw in two.items():
        assert str(other).encode() not in raw, name


@pytest.mark.parametrize("precision", ["q4_0", "iq4_nl"])
def test_the_file_of_the_lower_divergence_is_taken(
    template: Path, tmp_path: Path, precision: str
) -> None:
    from edgeship.calibration.importance_file import read_importance
    from edgeship.exporters.gguf.assembly import assemble, write_assembly

    directory = artifact(template, precision)
    notes = read_artifact(directory).manifest.notes
    (found,) = [match for note in notes if (match := NOTE.match(note))]
    taken, weighted, plain = found[1], float(found[2]), float(found[3])
    assert int(found[4]) > 300
    assert weighted != plain
    assert (taken == "taken") == (weighted < plain)
    (file,) = (template / ".edgeship/stages/observe").glob("*/importance.gguf")
    candidates = {}
    for name, importance in (("taken", read_importance(file)), ("not taken", None)):
        assembly = assemble(template / "hf", precision, has_importance=importance is not None)
        candidates[name] = tmp_path / name
        write_assembly(
            assembly, template / "hf", candidates[name], importance=importance, threads=1
        )
    shipped = (directory / "model.gguf").read_bytes()
    assert [name for name, path in candidates.items() if path.read_bytes() == shipped] == [taken]


PRUNED: Final = ((4, 2, 96), (2, 1, 64), (6, 3, 32))
"""Query heads, key heads and feed-forward width of each layer."""


def write_decoder(
    directory: Path,
    family: str,
    layers: Sequence[tuple[int, int, int]],
    *,
    hidden: int,
    head_dim: int,
) -> None:
    """A random one in float16, which an F16 file holds exactly."""
    generator = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary_size(), hidden)}
    for index, (heads, kv_heads, ffn) in enumerate(layers):
        layer = f"model.layers.{index}"
        rows = {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * head_dim}
        for name, height in rows.items():
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (height, hidden)
            if family == "Qwen2":
                shapes[f"{layer}.self_attn.{name}_proj.bias"] = (height,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, heads * head_dim)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[f"{layer}.mlp.up_proj.weight"] = (ffn, hidden)
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, ffn)
        shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
    shapes |= {
        "model.norm.weight": (hidden,),
        "lm_head.weight": shapes["model.embed_tokens.weight"],
    }
    tensors = []
    for name, shape in shapes.items():
        values = generator.normal(1.0 if "norm" in name else 0.0, 0.2, shape).astype(np.float32)
        tensors.append((name, checkpoints.stored(values, "F16")))
    directory.mkdir(parents=True)
    checkpoints.write_shards(directory, tensors, 2)
    heads, kv_heads, ffn = layers[0]
    config = {
        "architectures": [f"{family}ForCausalLM"],
        "model_type": family.lower(),
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocabulary_size(),
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    write_tokenizer(directory)


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
def test_layers_of_unequal_width_run_as_in_torch(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import gguf

    write_decoder(tmp_path / "hf", family, PRUNED, hidden=64, head_dim=16)
    assert build(write_project(tmp_path, ["f16"]), capsys)[0] == 0
    directory = artifact(tmp_path, "f16")
    manifest = read_artifact(directory).manifest
    (evidence,) = manifest.evidence
    assert evidence.samples > 500
    assert evidence.metrics[Metric.AGREEMENT] >= 0.99
    assert evidence.metrics[Metric.KLD] < 1e-4
    assert [note for note in manifest.notes if note.startswith("written as deci: ")]
    fields = gguf.GGUFReader(directory / "model.gguf").fields
    assert fields["general.architecture"].contents() == "deci"
    heads, kv_heads, ffn = (list(values) for values in zip(*PRUNED, strict=True))
    assert fields["deci.attention.head_count"].contents() == heads
    assert fields["deci.attention.head_count_kv"].contents() == kv_heads
    assert fields["deci.feed_forward_length"].contents() == ffn


def test_substituted_tensors_are_counted_and_strict_refuses_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_decoder(tmp_path / "hf", "Llama", [(4, 2, 80)] * 2, hidden=96, head_dim=24)
    directory = write_project(tmp_path, ["q4_k_m"], more="budget.accuracy_drop = 'off'\n")
    assert build(directory, capsys)[0] == 0
    notes = read_artifact(artifact(tmp_path, "q4_k_m")).manifest.notes
    (smaller,) = [note for note in notes if "Q5_0 instead of Q4_K" in note]
    assert "96 columns are no multiple of 256" in smaller
    assert "a width of 256 would avoid it" in smaller
    halves = [note for note in notes if "F16 instead of" in note]
    assert halves
    assert all("80 columns" in note for note in halves)
    (whole,) = [note for note in notes if note.startswith("all weights together: ")]
    effective, nominal = map(float, re.findall(r"\d+\.\d+", whole))
    assert effective > nominal > 4.5
    size = (artifact(tmp_path, "q4_k_m") / "model.gguf").stat().st_size
    weights = vocabulary_size() * 96 * 2 + 2 * 96 * (96 * 3 + 80 * 3)
    assert 0 < size - effective * weights / 8 < 20_000

    before = contents(directory / "build")
    edit(directory / "edgeship.toml", "gguf.precisions", "gguf.strict = true\ngguf.precisions")
    code, value = build(directory, capsys)
    assert code == 2
    told = {problem["found"]: problem for problem in value["problems"]}
    assert "blk.0.attn_k.weight" in json.dumps(value["problems"])
    assert told["rows of 96"]["expected"] == "rows of a multiple of 256 weights"
    assert "256 columns" in told["rows of 96"]["remedy"]
    assert "ffn_down.weight" in told["rows of 80"]["what"]
    assert contents(directory / "build") == before


def test_an_encoder_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tiny.write_bert(tmp_path / "hf")
    words = {word: index for index, word in enumerate(tiny.WORDS)}
    tokenizer: Any = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = (("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    tokenizer.post_processor = processors.BertProcessing(*ends)
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep")}
    tokenizer.add_special_tokens(list(roles.values()))
    tokenizer.save(str(tmp_path / "hf/tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", **roles}
    (tmp_path / "hf/tokenizer_config.json").write_text(json.dumps(settings))
    write_project(tmp_path, ["f16", "q8_0"], ENCODER)
    verbs = ("jump", "jumps", "jumped")
    lines = [f"the quick {one} the {other} fox" for one in verbs for other in verbs]
    (tmp_path / "test.txt").write_text("\n\n".join(lines))
    code, value = build(tmp_path, capsys)
    assert code == 0, value
    for precision in ("f16", "q8_0"):
        manifest = read_artifact(artifact(tmp_path, precision)).manifest
        (evidence,) = manifest.evidence
        assert evidence.rung is Rung.MATCHES
        assert evidence.metrics[Metric.COSINE_MEAN] > 0.99
        (given,) = manifest.contract.outputs
        assert (given.name, given.shape) == ("mean_pooled", (1, 64))


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **changes}))


def truncate(hf: Path) -> None:
    shard = max(hf.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])


def misname_shard(hf: Path) -> None:
    edit(hf / "model.safetensors.index.json", "model-00003-of", "model-00009-of")


def spoil_weight(hf: Path) -> None:
    from safetensors.torch import load_file, save_file

    index = json.loads((hf / "model.safetensors.index.json").read_bytes())
    name = "model.layers.1.mlp.down_proj.weight"
    shard = hf / index["weight_map"][name]
    tensors = load_file(shard)
    tensors[name][5, 3] = float("nan")
    save_file(tensors, shard, {"format": "pt"})


def remove_tokenizer(hf: Path) -> None:
    (hf / "tokenizer.model").unlink()


def rename_architecture(hf: Path) -> None:
    edit_json(hf / "config.json", architectures=["GPT2LMHeadModel"], model_type="gpt2")


DAMAGES: Final[Mapping[str, tuple[Callable[[Path], None], int, str]]] = {
    "truncated shard": (truncate, 2, r"model-00003-of-00003\.safetensors"),
    "absent shard": (misname_shard, 2, r"model-00009-of-00003\.safetensors"),
    "NaN": (spoil_weight, 3, r"model\.layers\.1\.mlp\.down_proj\.weight, row 5"),
    "no tokenizer": (remove_tokenizer, 2, r"tokenizer"),
    "architecture": (rename_architecture, 2, r"GPT2LMHeadModel"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_input_is_one_error_and_keeps_the_last_artifact(
    damage: str, project_of_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected, named = DAMAGES[damage]
    spoil(project_of_gguf / "hf")
    before = contents(project_of_gguf / "build")
    code, value = build(project_of_gguf, capsys)
    assert code == expected
    (problem,) = value["problems"]
    assert re.search(named, json.dumps(problem)), problem
    assert contents(project_of_gguf / "build") == before
    assert not [*project_of_gguf.rglob(".new-*")]


def test_unknown_architecture_is_refused_before_anything_is_imported(
    project_of_gguf: Path,
) -> None:
    rename_architecture(project_of_gguf / "hf")
    script = (
        "import sys; from edgeship.cli import main\n"
        "code = main(['plan', '-p', sys.argv[1]])\n"
        "print('modules:', *{name.partition('.')[0] for name in sys.modules})\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(project_of_gguf / "edgeship.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "GPT2LMHeadModel" in done.stderr
    assert "LlamaForCausalLM" in done.stderr
    loaded = set(done.stdout.split("modules:")[-1].split())
    assert not {"torch", "transformers", "llama_cpp", "gguf", "numba"} & loaded


def test_a_full_disk_is_one_error_and_keeps_the_last_artifact(project_of_gguf: Path) -> None:
    """A limit on the size of files is what a test can have of a full disk."""
    edit(project_of_gguf / "edgeship.toml", "gguf.precisions", "gguf.context = 64\ngguf.precisions")
    edit(project_of_gguf / "edgeship.toml", str(list(TYPES)), "['f16']")
    before = contents(project_of_gguf / "build")
    size = (artifact(project_of_gguf, "f16") / "model.gguf").stat().st_size

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    done = subprocess.run(
        [sys.executable, "-m", "edgeship", "build", "--quiet"],
        cwd=project_of_gguf,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("error:") == 1
    assert "model.gguf" in done.stderr
    assert contents(project_of_gguf / "build") == before
    assert not [*project_of_gguf.rglob(".new-*")]


def test_perplexity_over_the_budget_fails_and_keeps_the_file(
    project_of_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project_of_gguf / "edgeship.toml"
    file.write_text(file.read_text() + "budget.accuracy_drop = '0.0001 pt'\n")
    code, value = build(project_of_gguf, capsys)
    verdicts = {}
    for item in value["artifacts"]:
        (evidence,) = item["evidence"]
        metrics = evidence["metrics"]
        rise = metrics["perplexity"] / metrics["reference_perplexity"] - 1
        assert item["verdict"] == ("fail" if rise > 1e-6 else "pass")
        verdicts[item["precision"]] = item["verdict"]
    assert verdicts["q4_0"] == "fail"
    assert code == 4
    assert (artifact(project_of_gguf, "q4_0") / "model.gguf").is_file()
