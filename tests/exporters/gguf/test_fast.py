import errno
import importlib.util
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeship.exporters.gguf import fast
from edgeship.exporters.gguf.fast import FAST_KINDS, FastKernels, fast_kernels
from edgeship.exporters.gguf.kinds import Kind
from edgeship.exporters.gguf.library import Bytes, Floats, Ggml, Kernel

numba = pytest.importorskip("numba", reason="the extra [fast] is not installed")
from numba.core.caching import FunctionCache  # noqa: E402  # after the check for it

from edgeship.exporters.gguf.fast_compile import kernel  # noqa: E402

Weights = NDArray[np.floating]
BLOCKS = 203  # no multiple of the blocks that are taken at once
EXPONENTS = (-44, -38, -30, -20, -16, -15, -14, -12, -11, -8, -5, 0, 3, 4, 5, 10, 18, 30, 37)


@pytest.fixture(scope="module")
def kernels() -> FastKernels:
    return fast_kernels(dict.fromkeys(FAST_KINDS, 1), worth_s=0)


def normal(random: np.random.Generator) -> Floats:
    return random.normal(0, 0.02, (BLOCKS, 256)).astype(np.float32)


def of_size(size: float, random: np.random.Generator) -> Floats:
    with np.errstate(over="ignore"):
        return random.normal(0, size, (BLOCKS, 256)).astype(np.float32)


def scaled(random: np.random.Generator, low: float, high: float, width: int) -> Floats:
    size = 10.0 ** random.uniform(low, high, (BLOCKS, 256 // width, 1))
    values = random.normal(0, 1, (BLOCKS, 256 // width, width)) * size
    return values.reshape(BLOCKS, 256).astype(np.float32)


def with_outlier(random: np.random.Generator, value: float) -> Floats:
    rows = normal(random)
    rows[np.arange(BLOCKS), random.integers(0, 256, BLOCKS)] = value
    return rows


def with_constants(random: np.random.Generator, value: float) -> Floats:
    rows = normal(random).reshape(BLOCKS, 16, 16)
    rows[random.random((BLOCKS, 16)) < 0.3] = value
    return rows.reshape(BLOCKS, 256)


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], Weights]] = {
    "normal": normal,
    "student": lambda random: random.standard_t(3, (BLOCKS, 256)) * 0.02,
    "uniform": lambda random: random.uniform(-1, 1, (BLOCKS, 256)),
    "positive": lambda random: random.uniform(0, 1, (BLOCKS, 256)),
    "negative": lambda random: random.uniform(-1.1, -1, (BLOCKS, 256)),
    "constant": lambda random: np.repeat(random.normal(0, 1, (BLOCKS, 1)), 256, 1),
    "zeros": lambda _: np.zeros((BLOCKS, 256)),
    "negative zeros": lambda _: np.full((BLOCKS, 256), -0.0),
    "pruned": lambda random: normal(random) * (random.random((BLOCKS, 256)) < 0.1),
    "pruned blocks": lambda random: with_constants(random, 0.0),
    "constant blocks": lambda random: with_constants(random, -0.3),
    "jitter": lambda random: -1 - 1e-7 * random.integers(0, 2, (BLOCKS, 256)),
    "one outlier": lambda random: with_outlier(random, 30.0),
    "one negative outlier": lambda random: with_outlier(random, -30000.0),
    "sub-blocks of all magnitudes": lambda random: scaled(random, -9, 4, 32),
    "weights of all magnitudes": lambda random: scaled(random, -40, 4, 1),
    "grid": lambda random: random.integers(-3, 4, (BLOCKS, 256)) / 64,
    "ties": lambda random: random.integers(-31, 32, (BLOCKS, 256)) / 2,
    "NaN": lambda random: with_outlier(random, np.nan),
    "infinity": lambda random: with_outlier(random, -np.inf),
    "half": lambda random: normal(random).astype(np.float16),
    **{f"1e{exponent}": partial(of_size, 10.0**exponent) for exponent in EXPONENTS},
}


def both(kernel: Kernel, kind: Kind, weights: Weights) -> tuple[Bytes, Bytes]:
    rows = np.ascontiguousarray(weights, np.float32)
    ours, theirs = (
        np.full((len(rows), kind.row_bytes(rows.shape[1])), fill, np.uint8) for fill in (0x55, 0xAA)
    )
    kernel(rows, ours)
    Ggml().quantize(kind, rows, None, theirs)
    return ours, theirs


def assert_same(kernel: Kernel, kind: Kind, weights: Weights) -> None:
    ours, theirs = both(kernel, kind, weights)
    differing = np.flatnonzero((ours != theirs).any(1))
    assert differing.size == 0, (
        f"{kind}: {differing.size} of {len(ours)} rows differ, the first at {differing[0]}: "
        f"bytes {np.flatnonzero(ours[differing[0]] != theirs[differing[0]])}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAST_KINDS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_bytes_are_those_of_ggml(kernels: FastKernels, kind: Kind, name: str) -> None:
    random = np.random.default_rng(7)
    assert_same(kernels.kernels[kind], kind, DISTRIBUTIONS[name](random))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(FAST_KINDS),
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False, width=32) | st.floats(-4, 4, width=32),
        min_size=1,
        max_size=300,
    ),
    st.integers(0, 2**32),
)
def test_any_weights_give_the_bytes_of_ggml(
    kernels: FastKernels, kind: Kind, values: list[float], seed: int
) -> None:
    chosen = np.random.default_rng(seed).choice(np.array(values, np.float32), (3, 512))
    assert_same(kernels.kernels[kind], kind, chosen)


@pytest.mark.slow
def test_no_rows_are_no_work(kernels: FastKernels) -> None:
    for kind, proven in kernels.kernels.items():
        assert_same(proven, kind, np.empty((0, 256), np.float32))


def test_a_kernel_serves_where_there_is_no_importance() -> None:
    calls = []

    def kernel(rows: Floats, out: Bytes, /) -> None:
        calls.append(rows.shape)
        out[:] = 1

    ggml = Ggml({Kind.Q4_K: kernel})
    rows = normal(np.random.default_rng(8))
    out = np.empty((BLOCKS, 144), np.uint8)
    ggml.quantize(Kind.Q4_K, rows, None, out)
    assert calls == [rows.shape]
    assert (out == 1).all()
    ggml.quantize(Kind.Q4_K, rows, np.ones(256, np.float32), out)
    assert len(calls) == 1
    assert not (out == 1).all()


@pytest.mark.slow
def test_all_kinds_are_proven_here(kernels: FastKernels) -> None:
    assert tuple(kernels.kernels) == FAST_KINDS
    assert kernels.notes == ()
    assert str(kernels) == f"compiled kernels for {', '.join(FAST_KINDS)}"


def test_small_models_stay_with_ggml() -> None:
    assert fast_kernels({Kind.Q4_K: 5_000_000, Kind.Q8_0: 10**12}) == FastKernels()
    assert str(FastKernels()) == "ggml's kernels"


def test_without_numba_ggml_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert fast_kernels({Kind.Q4_K: 1}, worth_s=0) == FastKernels()


def test_a_numba_that_cannot_be_imported_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Kind) -> None:
        message = "Numba needs NumPy 2.4 or less"
        raise ImportError(message)

    monkeypatch.setattr(fast, "_code", refuse)
    found = fast_kernels({Kind.Q4_K: 1}, worth_s=0)
    assert found.kernels == {}
    assert found.notes[0].endswith("numba cannot be imported: Numba needs NumPy 2.4 or less")


def test_a_kernel_that_cannot_be_kept_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: NDArray[np.generic]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fast, "_code", lambda _: full)
    found = fast_kernels({Kind.Q4_K: 1}, worth_s=0)
    assert found.kernels == {}
    assert "Q4_K: it cannot be kept: " in found.notes[0]


def test_without_a_place_to_keep_it_code_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object) -> None:
        message = "cannot cache function: no locator available"
        raise RuntimeError(message)

    monkeypatch.setattr(FunctionCache, "__init__", homeless)
    assert kernel(_doubled)(np.float32(1.5)) == 3


def _doubled(value: np.float32) -> np.float32:
    return value + value


def test_a_kernel_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def differing(weights: Floats, out: Bytes, is_done: Bytes) -> None:
        Ggml().quantize(Kind.Q4_K, weights, None, out)
        out[-1, -1] ^= 1
        is_done[:] = 1

    monkeypatch.setattr(fast, "_code", lambda _: differing)
    found = fast_kernels({Kind.Q4_K: 1}, worth_s=0)
    assert found.kernels == {}
    assert found.notes == ("no compiled kernel for Q4_K: the installed ggml rounds otherwise",)
