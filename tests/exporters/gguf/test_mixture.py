from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.errors import UnknownName
from edgeship.exporters.gguf import mixture, substitution
from edgeship.exporters.gguf.blueprint import ModelFacts, TensorPlan
from edgeship.exporters.gguf.file_types import FILE_TYPES
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.mixture import Assignment, assign_kinds
from edgeship.vocabulary import PRECISIONS, Format

official = SimpleNamespace(**run_path(str(Path(__file__).parent / "official_types.py")))
SOME_ROWS: Final = 2
"""The rules ask for the length of rows, not for their number."""
Difference = tuple[str, bool, str, str, str]
"""File type, importance, tensor, our kind, theirs."""


def model(
    layers: int,
    hidden: int,
    heads: int | tuple[int, ...],
    kv_heads: int | tuple[int, ...],
    ffn: int | tuple[int, ...],
    head_dim: int = 64,
    tied: bool = False,
) -> ModelFacts:
    def each(value: int | tuple[int, ...]) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,) * layers

    return ModelFacts(
        layers=layers,
        hidden=hidden,
        vocabulary=SOME_ROWS,
        context=512,
        head_dim=head_dim,
        heads=each(heads),
        kv_heads=each(kv_heads),
        ffn=each(ffn),
        ties_embeddings=tied,
        is_causal=True,
    )


def decoder_shapes(facts: ModelFacts, architecture: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (SOME_ROWS, facts.hidden)
    yield "output_norm.weight", (facts.hidden,)
    if not facts.ties_embeddings:
        yield "output.weight", (SOME_ROWS, facts.hidden)
    yield "rope_freqs.weight", (facts.head_dim // 2,)
    for layer in range(facts.layers):
        block = f"blk.{layer}"
        if facts.heads[layer]:
            yield f"{block}.attn_norm.weight", (facts.hidden,)
            for part in "qkv":
                yield f"{block}.attn_{part}.weight", (SOME_ROWS, facts.hidden)
                if architecture == "qwen2":
                    yield f"{block}.attn_{part}.bias", (SOME_ROWS,)
                if architecture == "qwen3" and part != "v":
                    yield f"{block}.attn_{part}_norm.weight", (facts.head_dim,)
            inner = facts.heads[layer] * facts.head_dim
            yield f"{block}.attn_output.weight", (SOME_ROWS, inner)
        if facts.ffn[layer]:
            yield f"{block}.ffn_norm.weight", (facts.hidden,)
            yield f"{block}.ffn_gate.weight", (SOME_ROWS, facts.hidden)
            yield f"{block}.ffn_up.weight", (SOME_ROWS, facts.hidden)
            yield f"{block}.ffn_down.weight", (SOME_ROWS, facts.ffn[layer])


def encoder_shapes(facts: ModelFacts) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in ("token_embd", "position_embd", "token_types"):
        yield f"{name}.weight", (SOME_ROWS, facts.hidden)
    yield "token_embd_norm.weight", (facts.hidden,)
    yield "token_embd_norm.bias", (facts.hidden,)
    for layer in range(facts.layers):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
            columns = facts.ffn[layer] if part == "ffn_down" else facts.hidden
            yield f"blk.{layer}.{part}.weight", (SOME_ROWS, columns)
            yield f"blk.{layer}.{part}.bias", (SOME_ROWS,)
        for part in ("attn_output_norm", "layer_output_norm"):
            yield f"blk.{layer}.{part}.weight", (facts.hidden,)
            yield f"blk.{layer}.{part}.bias", (facts.hidden,)


def shapes_of(architecture: str, facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    is_encoder = architecture == "bert"
    return dict(encoder_shapes(facts) if is_encoder else decoder_shapes(facts, architecture))


def assigned(
    architecture: str, facts: ModelFacts, file_type: str, has_importance: bool
) -> Assignment:
    shapes = shapes_of(architecture, facts)
    plans = [TensorPlan(name=name, shape=shape, source="") for name, shape in shapes.items()]
    return assign_kinds(plans, facts, file_type, has_importance, architecture=architecture)


MODELS: Final = {
    "llama": ("llama", model(6, 256, 4, 2, 512)),
    "llama-tied": ("llama", model(9, 256, 8, 2, 768, tied=True)),
    "llama-one-layer": ("llama", model(1, 256, 4, 4, 256)),
    "llama-odd-widths": ("llama", model(10, 576, 9, 3, 1536, tied=True)),
    "llama-ffn-of-32s": ("llama", model(17, 512, 8, 1, 1376)),
    "llama-no-32s": ("llama", model(8, 80, 5, 5, 200, head_dim=16)),
    "llama-no-32s-tied": ("llama", model(8, 80, 5, 1, 256, head_dim=16, tied=True)),
    "large-llama": ("llama", model(80, 256, 4, 1, 288)),
    "large-llama-own-keys": ("llama", model(80, 256, 8, 8, 288)),
    "qwen2": ("qwen2", model(24, 896, 14, 2, 4864, tied=True)),
    "large-qwen2": ("qwen2", model(80, 256, 4, 4, 256)),
    "qwen3": ("qwen3", model(14, 256, 16, 8, 768, tied=True)),
    "large-qwen3": ("qwen3", model(80, 256, 8, 1, 256)),
    "bert": ("bert", model(6, 384, 12, 12, 1536, head_dim=32, tied=True)),
    "bert-base": ("bert", model(12, 768, 12, 12, 3072, tied=True)),
    "deci": (
        "deci",
        model(9, 256, (8, 6, 0, 4, 8, 2, 8, 8, 1), (2, 3, 0, 2, 4, 1, 4, 1, 1),
              (768, 512, 640, 736, 0, 256, 704, 720, 100), head_dim=32),
    ),
    "deci-no-first-attention": (
        "deci", model(8, 512, (0, *[8] * 7), (0, *[1] * 7), 512, tied=True)
    ),
    "large-deci": ("deci", model(80, 256, 4, 4, 256)),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    official.silence()


def test_every_precision_has_a_file_type_with_llama_cpps_number() -> None:
    from llama_cpp import llama_cpp as llama

    assert set(FILE_TYPES) == set(PRECISIONS[Format.GGUF])
    for name, file_type in FILE_TYPES.items():
        assert file_type.name == name
        assert file_type.number == getattr(llama, f"LLAMA_FTYPE_MOSTLY_{name.upper()}")


def test_an_unknown_file_type_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="q4_k_m"):
        assigned("llama", MODELS["llama"][1], "q4_k_l", False)


SMALL: Final = [case for case in MODELS if not case.startswith("large")]


@pytest.mark.parametrize("case", SMALL)
def test_kinds_are_those_that_llama_cpp_computes(case: str) -> None:
    architecture, facts = MODELS[case]
    wrong = differences_from_computed(architecture, facts)
    assert not wrong, wrong


@settings(max_examples=20, deadline=None)
@given(
    architecture=st.sampled_from(["llama", "qwen2", "qwen3", "bert", "deci"]),
    layers=st.integers(1, 33),
    hidden=st.sampled_from([80, 256, 288, 512]),
    kv_heads=st.integers(1, 3),
    queries_per_key=st.integers(1, 8),
    ffn=st.sampled_from([200, 256, 352, 768]),
    tied=st.booleans(),
)
def test_kinds_of_any_sizes_are_those_that_llama_cpp_computes(
    architecture: str,
    layers: int,
    hidden: int,
    kv_heads: int,
    queries_per_key: int,
    ffn: int,
    tied: bool,
) -> None:
    heads = kv_heads * queries_per_key
    facts = model(layers, hidden, heads, kv_heads, ffn, head_dim=32, tied=tied)
    wrong = differences_from_computed(architecture, facts)
    assert not wrong, wrong


@pytest.mark.parametrize("case", ["llama-tied", "qwen3", "bert", "deci"])
def test_kinds_are_those_that_llama_cpp_stores(case: str, tmp_path: Path) -> None:
    architecture, facts = MODELS[case]
    wrong = differences_from_stored(architecture, facts, tmp_path, list(FILE_TYPES))
    assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(set(MODELS) - {"llama-tied", "qwen3", "bert", "deci"}))
def test_kinds_are_those_that_llama_cpp_stores_of_all_models(case: str, tmp_path: Path) -> None:
    architecture, facts = MODELS[case]
    wrong = differences_from_stored(architecture, facts, tmp_path, list(FILE_TYPES))
    assert not wrong, wrong


def test_a_matrix_of_one_row_is_a_vector() -> None:
    facts = MODELS["llama"][1]
    shapes = {"token_embd.weight": (2, 256), "cls.output.weight": (1, 256), "cls.weight": (3, 256)}
    (theirs,) = official.computed_types("bert", facts, shapes, [FILE_TYPES["q4_0"].number])
    plans = [TensorPlan(name=name, shape=shape, source="") for name, shape in shapes.items()]
    ours = assign_kinds(plans, facts, "q4_0", False, architecture="bert").kinds
    assert ours == {**theirs, "cls.output.weight": "F32"}
    assert "cls.output.weight" not in theirs


@pytest.mark.parametrize("case", ["large-llama", "large-qwen2"])
def test_models_of_80_blocks_keep_more_of_the_values(case: str, tmp_path: Path) -> None:
    architecture, facts = MODELS[case]
    wrong = differences_from_stored(architecture, facts, tmp_path, ["q4_k_s"], (False,))
    assert not wrong, wrong
    kinds = assigned(architecture, facts, "q4_k_s", False).kinds
    assert {kinds[f"blk.{layer}.attn_v.weight"] for layer in range(80)} == {Kind.Q5_K}


@pytest.mark.parametrize(
    "rule", ["_is_sensitive", "_is_value", "_queries_per_key", "_SMALLER_BLOCKS"]
)
def test_a_wrong_rule_would_be_noticed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if rule == "_SMALLER_BLOCKS":
        monkeypatch.setitem(substitution._SMALLER_BLOCKS, Kind.Q4_K, Kind.Q4_0)
    else:
        monkeypatch.setattr(mixture, rule, lambda *_: 0)
    architecture, facts = MODELS["llama-ffn-of-32s"]
    assert differences_from_computed(architecture, facts)


def differences_from_computed(architecture: str, facts: ModelFacts) -> list[Difference]:
    shapes = shapes_of(architecture, facts)
    numbers = [file_type.number for file_type in FILE_TYPES.values()]
    computed = official.computed_types(architecture, facts, shapes, numbers)
    wrong = []
    for file_type, theirs in zip(FILE_TYPES, computed, strict=True):
        ours = assigned(architecture, facts, file_type, False)
        assert len(theirs) == ours.matrices
        left_alone = dict.fromkeys(shapes, "F32") | theirs
        wrong += differences(file_type, False, ours.kinds, left_alone)
    return wrong


def differences_from_stored(
    architecture: str,
    facts: ModelFacts,
    directory: Path,
    file_types: list[str],
    importance: tuple[bool, ...] = (False, True),
) -> list[Difference]:
    source, quantized = directory / "f32.gguf", directory / "quantized.gguf"
    official.write_float_file(source, architecture, facts, shapes_of(architecture, facts))
    wrong = []
    for name, has_importance in product(file_types, importance):
        official.quantize_file(source, quantized, FILE_TYPES[name].number, has_importance)
        ours = assigned(architecture, facts, name, has_importance).kinds
        theirs = official.stored_types(quantized)
        assert list(ours) == list(theirs)
        wrong += differences(name, has_importance, ours, theirs)
    return wrong


def differences(
    file_type: str, has_importance: bool, ours: Mapping[str, Kind], theirs: Mapping[str, str]
) -> list[Difference]:
    assert set(ours) == set(theirs)
    return [
        (file_type, has_importance, name, str(kind), theirs[name])
        for name, kind in ours.items()
        if kind != theirs[name]
    ]


def test_bits_per_weight_are_those_of_the_stored_file(tmp_path: Path) -> None:
    architecture, facts = MODELS["bert"]
    source, quantized = tmp_path / "f32.gguf", tmp_path / "quantized.gguf"
    official.write_float_file(source, architecture, facts, shapes_of(architecture, facts))
    official.quantize_file(source, quantized, FILE_TYPES["q4_k_m"].number, False)
    stored = gguf.GGUFReader(quantized).tensors
    expected = 8 * sum(int(t.n_bytes) for t in stored) / sum(int(t.n_elements) for t in stored)
    given = assigned(architecture, facts, "q4_k_m", False)
    assert given.bits_per_weight == pytest.approx(expected)
    assert given.nominal_bits_per_weight < given.bits_per_weight
