import importlib.util
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.errors import RequirementMissing
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.library import Bytes, Floats, Ggml, library_path
from edgeship.source.element import ElementType, widen

REFERENCES = (Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.BF16, Kind.F16)
COLUMNS = 512


@pytest.fixture(scope="module")
def ggml() -> Ggml:
    return Ggml()


def stored(ggml: Ggml, kind: Kind, rows: Floats, importance: Floats | None = None) -> Bytes:
    out = np.empty((len(rows), kind.row_bytes(rows.shape[1])), np.uint8)
    ggml.quantize(kind, rows, importance, out)
    return out


def restored(kind: Kind, raw: Bytes) -> Floats:
    return np.asarray(quants.dequantize(raw, gguf.GGMLQuantizationType[kind]), np.float32)


def normal(seed: int, rows: int = 8, columns: int = COLUMNS) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(REFERENCES), st.integers(0, 2**32), st.integers(-20, 4), st.booleans())
def test_bytes_equal_those_of_the_numpy_reference(
    kind: Kind, seed: int, exponent: int, is_sparse: bool
) -> None:
    rows = normal(seed) * np.float32(2.0**exponent)
    if is_sparse:
        rows[:, :64] = 0
        rows[0] = rows[0, -1]
    theirs = quants.quantize(rows, gguf.GGMLQuantizationType[kind]).view(np.uint8)
    np.testing.assert_array_equal(stored(Ggml(), kind, rows), theirs)


# In units of the largest weight of the block: half a step of at most 2 / (levels - 1), twice that
# where a search may choose a smaller scale and cut the largest, and where scales are rounded too.
# The levels of IQ4 are up to 24/127 apart.
BOUNDS = {
    Kind.F32: 0.0,
    Kind.F16: 2**-11,
    Kind.BF16: 2**-8,
    Kind.Q8_0: 1 / 127,
    Kind.Q4_0: 1 / 8,
    Kind.Q4_1: 2 / 15,
    Kind.Q5_0: 1 / 16,
    Kind.Q5_1: 2 / 31,
    Kind.IQ4_NL: 24 / 127,
    Kind.IQ4_XS: 24 / 127,
    Kind.Q4_K: 1 / 8,
    Kind.Q5_K: 1 / 16,
    Kind.Q6_K: 1 / 16,
}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("has_importance", [False, True])
def test_errors_stay_within_a_step(ggml: Ggml, kind: Kind, has_importance: bool) -> None:
    rows = normal(1)
    importance = np.ones(COLUMNS, np.float32) if has_importance else None
    raw = stored(ggml, kind, rows, importance)
    blocks = rows.reshape(-1, max(kind.block, 32))
    peak = np.abs(blocks).max(1, keepdims=True)
    error = np.abs(restored(kind, raw).reshape(blocks.shape) - blocks) / peak
    worst = np.unravel_index(error.argmax(), error.shape)
    assert error[worst] <= BOUNDS[kind], f"{kind}: {error[worst]} of the largest weight at {worst}"
    assert ggml.is_valid(kind, raw)


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_K, Kind.IQ4_NL])
def test_importance_lowers_the_error_where_it_is_high(ggml: Ggml, kind: Kind) -> None:
    rows = normal(2, rows=64)
    importance = np.ones(COLUMNS, np.float32)
    importance[::8] = 1000
    plain, weighted = (
        np.square(restored(kind, stored(ggml, kind, rows, given)) - rows)[:, ::8].sum()
        for given in (None, importance)
    )
    assert weighted < plain


def test_blocks_of_nan_are_not_valid(ggml: Ggml, capfd: pytest.CaptureFixture[str]) -> None:
    rows = normal(3)
    rows[2, 7] = np.nan
    assert not ggml.is_valid(Kind.F16, stored(ggml, Kind.F16, rows))
    assert "found nan" in capfd.readouterr().err


@pytest.mark.parametrize("element", [ElementType.BF16, ElementType.F16, ElementType.F32])
def test_stored_floats_widen_exactly(ggml: Ggml, element: ElementType) -> None:
    bits = np.random.default_rng(4).integers(0, 256, 2 * 65536, np.uint8)
    if element is not ElementType.F32:
        bits = np.arange(65536, dtype=np.uint16).view(np.uint8)
    expected = np.asarray(widen(bits.view(element.bits_dtype), element), np.float32)
    out = np.empty(bits.size // element.item_bytes, np.float32)
    ggml.widen(element, bits, out)
    is_number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(out), ~is_number)
    np.testing.assert_array_equal(out[is_number], expected[is_number])


def test_threads_give_the_bytes_of_one(ggml: Ggml) -> None:
    parts = [normal(seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda rows: stored(ggml, Kind.Q4_K, rows), parts))
    for rows, raw in zip(parts, threaded, strict=True):
        np.testing.assert_array_equal(raw, stored(ggml, Kind.Q4_K, rows))


def test_no_rows_are_no_bytes(ggml: Ggml) -> None:
    assert stored(ggml, Kind.Q4_K, np.empty((0, 256), np.float32)).size == 0


WRONG = {
    "another type": (np.zeros((1, 256)), None, 144, "rows must be C-contiguous float32"),
    "strided": (np.zeros((1, 512), np.float32)[:, ::2], None, 144, "rows must be C-contiguous"),
    "one axis": (np.zeros(256, np.float32), None, 144, "rows have 1 axes"),
    "too short": (np.zeros((2, 256), np.float32), None, 144, "out has 144 bytes for 2 rows of 144"),
    "half a block": (np.zeros((1, 384), np.float32), None, 216, "no multiple of 256"),
    "importance": (
        np.zeros((1, 256), np.float32),
        np.ones(128, np.float32),
        144,
        r"importance has shape \(128,\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_c_code_would_not_notice_is_refused(ggml: Ggml, name: str) -> None:
    rows, importance, size, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        ggml.quantize(Kind.Q4_K, rows, importance, np.empty(size, np.uint8))  # type: ignore[arg-type]  # wrong on purpose


def test_widening_refuses_other_types_and_sizes(ggml: Ggml) -> None:
    out = np.empty(4, np.float32)
    with pytest.raises(ValueError, match="weights of I16 cannot be widened"):
        ggml.widen(ElementType.I16, np.zeros(8, np.uint8), out)
    with pytest.raises(ValueError, match="6 bytes are not 4 weights of BF16"):
        ggml.widen(ElementType.BF16, np.zeros(6, np.uint8), out)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RequirementMissing, match=r'not installed; .*"edgeship\[gguf\]"'):
        library_path()
    empty = ModuleSpec("llama_cpp", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: empty)
    with pytest.raises(RequirementMissing, match="found no libggml-base"):
        library_path()


def test_the_library_says_its_version(ggml: Ggml) -> None:
    assert ggml.version().count(".") == 2
