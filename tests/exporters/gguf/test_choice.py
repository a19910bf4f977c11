from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

from edgeship.exporters.gguf.blueprint import ModelFacts, TensorPlan
from edgeship.exporters.gguf.choice import choice_notes, recommended_type, repacked_kinds
from edgeship.exporters.gguf.file_types import FILE_TYPES
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.mixture import assign_kinds
from edgeship.exporters.gguf.substitution import Substitution
from edgeship.runtimes.llama_library import LlamaModel
from edgeship.targets import Arch, Gpu, load_target, target_names
from edgeship.targets.target import Cpu
from edgeship.vocabulary import Format

official = SimpleNamespace(**run_path(str(Path(__file__).parent / "official_types.py")))
FITTING: Final = (256, 768)
ORIN: Final = Gpu(sm="8.7", dla=0, precisions=("fp16", "int8"))
NANO: Final = Gpu(sm="5.3", dla=0, precisions=("fp16",))


@pytest.mark.parametrize(
    ("arch", "features", "gpu", "widths", "file_type", "words"),
    [
        (Arch.AARCH64, ["crc32"], None, FITTING, "q4_0", "no asimddp and no i8mm"),
        (Arch.AARCH64, ["asimddp"], None, FITTING, "q4_k_m", "with asimddp"),
        (Arch.AARCH64, ["asimddp", "i8mm"], None, (), "q4_k_m", "with i8mm"),
        (Arch.AARCH64, ["asimddp"], None, (384, 1536), "iq4_nl", "rows of 384 are no multiple"),
        (Arch.AARCH64, ["crc32"], None, (384, 1536), "q4_0", "cheapest"),
        (Arch.AARCH64, ["crc32"], ORIN, FITTING, "q4_k_m", "compute capability 8.7"),
        (Arch.AARCH64, ["crc32"], ORIN, (896,), "iq4_nl", "compute capability 8.7"),
        (Arch.AARCH64, ["crc32"], NANO, FITTING, "q4_0", "cheapest"),
        (Arch.X86_64, ["avx", "avx2"], None, FITTING, "q4_k_m", "with avx2"),
        (Arch.X86_64, ["avx"], None, FITTING, "q4_0", "no avx2"),
        (Arch.ARMV7L, ["neon"], None, FITTING, "q4_0", "armv7l has no such kernels"),
        (Arch.X86_64, ["avx2"], None, (80, 384), "iq4_nl", "rows of 80 stay F16 in every type"),
    ],
)
def test_the_type_follows_features_gpu_and_widths(
    arch: Arch,
    features: list[str],
    gpu: Gpu | None,
    widths: tuple[int, ...],
    file_type: str,
    words: str,
) -> None:
    given = recommended_type(arch, features, gpu, widths)
    assert given.file_type == file_type
    assert words in given.reason


def test_a_note_names_the_better_type_where_widths_forced_others() -> None:
    dotprod = Cpu(arch=Arch.AARCH64, cores="4 x Cortex-A76", features=("asimddp",))
    forced = [
        Substitution(tensor="a", wanted=Kind.Q4_K, got=Kind.Q5_0, columns=384, width=512),
    ]
    (note,) = choice_notes(dotprod, "q4_k_m", forced)
    assert note.startswith("iq4_nl may suit the board's CPU better: ")
    assert "rows of 384" in note
    assert choice_notes(dotprod, "iq4_nl", forced) == []
    assert choice_notes(dotprod, "q4_k_m", []) == []


def test_the_catalogue_ships_what_is_recommended() -> None:
    seen = []
    for name in target_names():
        for os in load_target(name).os_choices:
            target = load_target(name, os=os)
            facts = target.formats[Format.GGUF]
            is_on_cpu = facts.reason is not None and facts.reason.startswith("on its CPU")
            gpu = None if is_on_cpu else target.gpu
            given = recommended_type(target.cpu.arch, target.cpu.features, gpu, FITTING)
            assert facts.precisions[:1] == (given.file_type,), f"{name} {os}: {given.reason}"
            seen.append(given.file_type)
    assert set(seen) == {"q4_0", "q4_k_m"}


@pytest.mark.parametrize("file_type", ["q4_0", "q4_1", "q8_0", "iq4_nl", "iq4_xs", "q4_k_s"])
def test_kinds_are_repacked_on_this_cpu_as_the_table_says(file_type: str, tmp_path: Path) -> None:
    if not has_avx2():
        pytest.skip("this llama.cpp was built without AVX2")
    sizes = {"hidden": 256, "vocabulary": 64, "context": 512, "head_dim": 64}
    facts = ModelFacts(
        layers=1, heads=(4,), kv_heads=(4,), ffn=(256,), ties_embeddings=True, is_causal=True,
        **sizes,
    )  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        f"blk.0.{part}.weight": (256, 256)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    }
    shapes |= {f"blk.0.{part}_norm.weight": (256,) for part in ("attn", "ffn")}
    shapes |= {"token_embd.weight": (64, 256), "output_norm.weight": (256,)}
    official.write_float_file(tmp_path / "f32.gguf", "llama", facts, shapes)
    quantized = tmp_path / "quantized.gguf"
    official.quantize_file(tmp_path / "f32.gguf", quantized, FILE_TYPES[file_type].number, False)
    plans = [TensorPlan(name=name, shape=shape, source="") for name, shape in shapes.items()]
    kinds = assign_kinds(plans, facts, file_type, False, architecture="llama").kinds
    copied = repacked_kinds(Arch.X86_64, ["avx2"])
    expected = sum(kinds[name].row_bytes(256) * 256 for name in shapes if kinds[name] in copied)
    loaded = LlamaModel(quantized)
    found = loaded.weight_bytes - loaded.library.llama_model_size(loaded.pointer)
    # what is mapped leaves out the edges of the file; both are rounded to 0.01 MiB
    assert found == pytest.approx(expected, abs=60_000)
    assert (expected > 200_000) == (FILE_TYPES[file_type].kind in copied)


def has_avx2() -> bool:
    from llama_cpp import llama_cpp as llama

    return b"AVX2 = 1" in llama.llama_print_system_info()


def test_no_kind_without_repacked_kernels_is_in_the_table() -> None:
    for arch, features in ((Arch.AARCH64, ["asimddp"]), (Arch.X86_64, ["avx2"])):
        assert not repacked_kinds(arch, features) & {Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.IQ4_XS}
