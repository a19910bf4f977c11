from __future__ import annotations

from typing import Final

import pytest

from edgeship.errors import ExportFailed
from edgeship.exporters.gguf.blueprint import ModelFacts, TensorPlan
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.mixture import Assignment, assign_kinds
from edgeship.exporters.gguf.substitution import (
    Substitution,
    fitting_kind,
    refuse_substitutions,
    substitution_notes,
    substitution_of,
    substitution_problems,
)

LAYERS: Final = 6


def minilm(width: int, file_type: str, ffn: int = 1536) -> Assignment:
    """all-MiniLM-L6-v2 by its shapes, at another width."""
    facts = ModelFacts(
        layers=LAYERS,
        hidden=width,
        vocabulary=30522,
        context=512,
        head_dim=32,
        heads=(12,) * LAYERS,
        kv_heads=(12,) * LAYERS,
        ffn=(ffn,) * LAYERS,
        ties_embeddings=True,
        is_causal=False,
    )
    shapes = {
        "token_embd.weight": (30522, width),
        "position_embd.weight": (512, width),
        "token_types.weight": (2, width),
        "token_embd_norm.weight": (width,),
    }
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{layer}.{part}.weight"] = (width, width)
        shapes[f"blk.{layer}.ffn_up.weight"] = (ffn, width)
        shapes[f"blk.{layer}.ffn_down.weight"] = (width, ffn)
    plans = [TensorPlan(name=name, shape=shape, source="") for name, shape in shapes.items()]
    return assign_kinds(plans, facts, file_type, False, architecture="bert")


@pytest.mark.parametrize(
    ("wanted", "columns", "got"),
    [
        (Kind.Q4_K, 512, Kind.Q4_K),
        (Kind.Q4_K, 384, Kind.Q5_0),
        (Kind.Q5_K, 32, Kind.Q5_1),
        (Kind.Q6_K, 288, Kind.Q8_0),
        (Kind.IQ4_XS, 128, Kind.IQ4_NL),
        (Kind.Q4_K, 80, Kind.F16),
        (Kind.Q4_0, 48, Kind.F16),
        (Kind.F16, 7, Kind.F16),
    ],
)
def test_rows_without_whole_blocks_get_a_kind_that_fits(
    wanted: Kind, columns: int, got: Kind
) -> None:
    assert fitting_kind(wanted, columns) is got


def test_a_substitution_tells_the_next_width_that_avoids_it() -> None:
    assert substitution_of("a", Kind.Q4_K, 512) is None
    assert substitution_of("a", Kind.Q4_K, 384) == Substitution(
        tensor="a", wanted=Kind.Q4_K, got=Kind.Q5_0, columns=384, width=512
    )
    narrow = substitution_of("a", Kind.Q4_0, 80)
    assert narrow is not None
    assert (narrow.got, narrow.width) == (Kind.F16, 96)


def test_every_substituted_matrix_of_minilm_is_reported() -> None:
    given = minilm(384, "q4_k_m")
    assert given.matrices == 37
    assert len(given.substituted) == 31
    assert {one.columns for one in given.substituted} == {384}
    assert all(given.kinds[one.tensor] is one.got for one in given.substituted)
    others = set(given.kinds) - {one.tensor for one in given.substituted}
    down = {f"blk.{layer}.ffn_down.weight" for layer in range(LAYERS)}
    assert down < others


def test_notes_tell_counts_widths_and_bits_of_each_group_and_of_the_file() -> None:
    first, second, whole = substitution_notes(minilm(384, "q4_k_m"))
    assert first == (
        "28 of 37 matrices are Q5_0 instead of Q4_K, since 384 columns are no multiple of 256: "
        "5.5 bits per weight instead of 4.5; a width of 512 or 256 would avoid it"
    )
    assert second.startswith("3 of 37 matrices are Q8_0 instead of Q6_K")
    assert whole.startswith("all weights together: ")


def test_bits_of_the_file_count_every_weight() -> None:
    given = minilm(384, "q4_k_m")
    embedding, positions, norm = 30522 * 384, 514 * 384, 384
    down_more, down_less = 2 * 384 * 1536, 4 * 384 * 1536
    values_more, rest = 2 * 384 * 384, 22 * 384 * 384 + 6 * 384 * 1536
    kinds = [given.kinds[f"blk.{layer}.ffn_down.weight"] for layer in range(LAYERS)]
    assert (kinds.count(Kind.Q6_K), kinds.count(Kind.Q4_K)) == (2, 4)
    weights = embedding + positions + norm + down_more + down_less + values_more + rest
    bits = 8.5 * (embedding + values_more) + 32 * (positions + norm)
    bits += 6.5625 * down_more + 4.5 * down_less + 5.5 * rest
    assert given.bits_per_weight == pytest.approx(bits / weights)
    bits = 6.5625 * (embedding + values_more + down_more) + 32 * (positions + norm)
    bits += 4.5 * (down_less + rest)
    assert given.nominal_bits_per_weight == pytest.approx(bits / weights)


def test_the_width_that_the_note_names_avoids_all() -> None:
    given = minilm(512, "q4_k_m")
    assert given.substituted == ()
    assert substitution_notes(given) == [f"{given.bits_per_weight:.2f} bits per weight"]
    assert given.bits_per_weight == given.nominal_bits_per_weight
    refuse_substitutions(given, where="strict")


def test_widths_below_a_block_are_only_widened() -> None:
    notes = substitution_notes(minilm(24, "q8_0", ffn=64))
    assert "F16 instead of Q8_0" in notes[0]
    assert notes[0].endswith("a width of 32 would avoid it")


def test_strict_refuses_with_tensors_and_widths() -> None:
    given = minilm(384, "q4_k_m")
    with pytest.raises(ExportFailed) as refused:
        refuse_substitutions(given, where="targets.pi.gguf.strict")
    problems = list(substitution_problems(given, where="targets.pi.gguf.strict"))
    assert refused.value.problems == tuple(problems)
    assert [problem.found for problem in problems] == ["rows of 384", "rows of 384"]
    assert "blk.0.attn_k.weight, blk.0.attn_output.weight" in problems[0].what
    assert "and 25 more" in problems[0].what
    assert "512 or 256 columns" in problems[0].remedy
