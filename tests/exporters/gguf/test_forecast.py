from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final, NamedTuple

import pytest

from edgeship.exporters.gguf.blueprint import ModelFacts, TensorPlan
from edgeship.exporters.gguf.file_types import FILE_TYPES
from edgeship.exporters.gguf.forecast import MemoryForecast, forecast_memory, memory_note
from edgeship.exporters.gguf.mixture import assign_kinds
from edgeship.runtimes.llama_library import LlamaModel

official = SimpleNamespace(**run_path(str(Path(__file__).parent / "official_types.py")))
ROUNDING: Final = 6000
"""Half of the 0.01 MiB to which llama.cpp rounds a buffer, and a little."""
Shape = tuple[str, tuple[int, ...]]


class Served(NamedTuple):
    context: int
    batch: int = 512
    has_flash_attention: bool = True


CONTEXTS: Final = (
    Served(512),
    Served(300),
    Served(2000),
    Served(4096, 128),
    Served(512, has_flash_attention=False),
    Served(2048, has_flash_attention=False),
)


def model(
    layers: int,
    hidden: int,
    heads: int | Sequence[int],
    kv_heads: int | Sequence[int],
    ffn: int | Sequence[int],
    vocabulary: int,
    head_dim: int = 32,
    is_causal: bool = True,
) -> ModelFacts:
    def each(value: int | Sequence[int]) -> tuple[int, ...]:
        return (value,) * layers if isinstance(value, int) else tuple(value)

    return ModelFacts(
        layers=layers,
        hidden=hidden,
        vocabulary=vocabulary,
        context=4096 if is_causal else 512,
        head_dim=head_dim,
        heads=each(heads),
        kv_heads=each(kv_heads),
        ffn=each(ffn),
        ties_embeddings=True,
        is_causal=is_causal,
    )


TINYLM: Final = model(6, 256, 8, 4, 768, 4096)
"""The shape of a Llama of 5.8 M parameters."""
MODELS: Final = {
    "llama": ("llama", TINYLM),
    "llama-few-words": ("llama", model(3, 256, 8, 2, 704, 320)),
    "qwen2": ("qwen2", model(3, 256, 4, 1, 1280, 9000, head_dim=64)),
    "qwen3": ("qwen3", model(3, 256, 4, 2, 768, 8192, head_dim=128)),
    "deci": ("deci", model(4, 256, (8, 4, 0, 6), (4, 1, 0, 3), (768, 512, 704, 736), 4096)),
    "bert": ("bert", model(3, 384, 12, 12, 1536, 3000, is_causal=False)),
}


def decoder_shapes(facts: ModelFacts, architecture: str) -> Iterator[Shape]:
    yield "token_embd.weight", (facts.vocabulary, facts.hidden)
    yield "output_norm.weight", (facts.hidden,)
    for layer in range(facts.layers):
        block, hidden, ffn = f"blk.{layer}", facts.hidden, facts.ffn[layer]
        heads = {"q": facts.heads[layer], "k": facts.kv_heads[layer], "v": facts.kv_heads[layer]}
        for part, count in heads.items():
            if not count:
                continue
            yield f"{block}.attn_{part}.weight", (count * facts.head_dim, hidden)
            if architecture == "qwen2":
                yield f"{block}.attn_{part}.bias", (count * facts.head_dim,)
            if architecture == "qwen3" and part != "v":
                yield f"{block}.attn_{part}_norm.weight", (facts.head_dim,)
        if heads["q"]:
            yield f"{block}.attn_norm.weight", (hidden,)
            yield f"{block}.attn_output.weight", (hidden, heads["q"] * facts.head_dim)
        yield f"{block}.ffn_norm.weight", (hidden,)
        yield f"{block}.ffn_gate.weight", (ffn, hidden)
        yield f"{block}.ffn_up.weight", (ffn, hidden)
        yield f"{block}.ffn_down.weight", (hidden, ffn)


def encoder_shapes(facts: ModelFacts) -> Iterator[Shape]:
    hidden = facts.hidden
    rows = {"token_embd": facts.vocabulary, "position_embd": facts.context, "token_types": 2}
    yield from ((f"{name}.weight", (count, hidden)) for name, count in rows.items())
    yield from ((f"token_embd_norm.{kind}", (hidden,)) for kind in ("weight", "bias"))
    for layer in range(facts.layers):
        parts = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (hidden, hidden))
        parts |= {"ffn_up": (facts.ffn[layer], hidden), "ffn_down": (hidden, facts.ffn[layer])}
        for part, shape in parts.items():
            yield f"blk.{layer}.{part}.weight", shape
            yield f"blk.{layer}.{part}.bias", shape[:1]
        for part in ("attn_output_norm", "layer_output_norm"):
            yield from ((f"blk.{layer}.{part}.{kind}", (hidden,)) for kind in ("weight", "bias"))


def plans(architecture: str, facts: ModelFacts) -> list[TensorPlan]:
    made = decoder_shapes(facts, architecture) if facts.is_causal else encoder_shapes(facts)
    return [TensorPlan(name=name, shape=shape, source="") for name, shape in made]


def write(directory: Path, architecture: str, facts: ModelFacts, file_type: str) -> Path:
    source, quantized = directory / "f32.gguf", directory / f"{file_type}.gguf"
    shapes = {plan.name: plan.shape for plan in plans(architecture, facts)}
    official.write_float_file(source, architecture, facts, shapes)
    official.quantize_file(source, quantized, FILE_TYPES[file_type].number, False)
    return quantized


def forecast(
    architecture: str, facts: ModelFacts, file_type: str, served: Served
) -> MemoryForecast:
    tensors = plans(architecture, facts)
    given = assign_kinds(tensors, facts, file_type, False, architecture=architecture)
    return forecast_memory(
        tensors,
        given.kinds,
        facts,
        context=served.context,
        batch=served.batch,
        has_flash_attention=served.has_flash_attention,
    )


def reported(loaded: LlamaModel, served: Served, *, is_encoder: bool) -> dict[str, int]:
    """What llama.cpp says that it allocates, in bytes."""
    library = loaded.library
    parameters = library.llama_context_default_params()
    parameters.n_ctx, parameters.embeddings = served.context, is_encoder
    parameters.n_batch = parameters.n_ubatch = served.context if is_encoder else served.batch
    parameters.flash_attn_type = int(served.has_flash_attention)
    loaded.log.clear()
    context = library.llama_init_from_model(loaded.pointer, parameters)
    assert context
    library.llama_free(context)
    return {
        "weights": library.llama_model_size(loaded.pointer),
        "cache": loaded.log.buffer_bytes({"KV"}),
        "compute": loaded.log.buffer_bytes({"compute"}),
        "output": loaded.log.buffer_bytes({"output"}),
    }


@pytest.mark.parametrize("case", MODELS)
def test_memory_is_what_llama_cpp_allocates(case: str, tmp_path: Path) -> None:
    architecture, facts = MODELS[case]
    loaded = LlamaModel(write(tmp_path, architecture, facts, "q4_k_m"))
    for served in CONTEXTS:
        if not facts.is_causal:
            served = served._replace(context=min(served.context, facts.context))
        ours = forecast(architecture, facts, "q4_k_m", served)
        theirs = reported(loaded, served, is_encoder=not facts.is_causal)
        assert ours.weights == theirs["weights"]
        assert ours.cache == pytest.approx(theirs["cache"], abs=ROUNDING), served
        assert ours.output == pytest.approx(theirs["output"], abs=ROUNDING), served
        ratio = ours.compute / theirs["compute"]
        assert 0.9 < ratio < 1.35, f"{served}: {ours.compute} for {theirs['compute']}"


@pytest.mark.slow
def test_memory_of_random_decoders_is_forecast_within_a_third(tmp_path: Path) -> None:
    draw = random.Random(7)
    for _ in range(40):
        architecture = draw.choice(["llama", "qwen2", "qwen3"])
        kv_heads, head_dim = draw.choice([1, 2, 4]), draw.choice([32, 64])
        heads = kv_heads * draw.choice([1, 2, 4])
        hidden = heads * head_dim if architecture == "qwen2" else draw.choice([128, 256, 512])
        vocabulary = hidden * draw.choice([1, 8, 32])
        ffn = hidden * draw.choice([2, 3, 4])
        facts = model(2, hidden, heads, kv_heads, ffn, vocabulary, head_dim)
        loaded = LlamaModel(write(tmp_path, architecture, facts, "q8_0"))
        for served in CONTEXTS:
            ours = forecast(architecture, facts, "q8_0", served)
            theirs = reported(loaded, served, is_encoder=False)
            assert ours.cache == pytest.approx(theirs["cache"], abs=ROUNDING)
            ratio = ours.compute / theirs["compute"]
            assert 0.75 < ratio < 1.35, (architecture, facts, served, ratio)


def test_cache_counts_the_key_heads_of_every_layer() -> None:
    architecture, facts = MODELS["deci"]
    ours = forecast(architecture, facts, "q8_0", Served(1000))
    assert ours.cache == (4 + 1 + 0 + 3) * 32 * 1024 * 2 * 2


def test_a_longer_context_takes_more_and_an_encoder_has_no_cache() -> None:
    short, long = (forecast("llama", TINYLM, "q4_0", Served(size)) for size in (512, 4096))
    assert long.cache == 8 * short.cache
    assert long.weights == short.weights
    encoder = forecast(*MODELS["bert"], "q4_0", Served(128))
    assert encoder.cache == 0
    assert "KV" not in memory_note(encoder, 1 << 30)


def test_the_note_adds_up_and_compares_with_the_board() -> None:
    ours = MemoryForecast(
        context=2048, weights=600_000_000, cache=90_000_000, compute=70_000_000, output=500_000
    )
    assert ours.total == 760_500_000
    assert memory_note(ours, 1_000_000_000) == (
        "memory at 2048 tokens: 600.0 MB weights + 90.0 MB KV cache + 70.5 MB buffers = 760.5 MB, "
        "of 1.0 GB (forecast, without the process around it)"
    )
    assert "which is more than 512.0 MB" in memory_note(ours, 512_000_000)
