from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.exporters.gguf.architectures import read_blueprint
from edgeship.exporters.gguf.architectures.configuration import Configuration
from edgeship.exporters.gguf.architectures.rope import Llama3Scaling, Rope, read_rope, rope_freqs

if TYPE_CHECKING:
    from tests.exporters.gguf.architectures.conftest import Small

_LLAMA_3_1 = Llama3Scaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
)


def _rope(**values: object) -> Rope:
    return read_rope(Configuration(values, "config.json"), context=512)


def test_factors_of_llama_3_1_are_those_of_its_formula() -> None:
    plan = rope_freqs(_LLAMA_3_1, 500_000.0, 128)
    assert (plan.name, plan.shape, plan.source) == ("rope_freqs.weight", (64,), "")
    expected = []
    for index in range(64):
        wavelength = 2 * math.pi * 500_000.0 ** (2 * index / 128)
        smooth = (8192 / wavelength - 1) / (4 - 1)
        between = 1 / ((1 - smooth) / 8 + smooth)
        expected.append(1 if wavelength < 2048 else 8 if wavelength > 8192 else between)
    assert plan.values is not None
    np.testing.assert_allclose(plan.values, expected, rtol=1e-5)
    assert {1.0, 8.0} < set(plan.values)


def test_factors_are_float32_numbers() -> None:
    plan = rope_freqs(_LLAMA_3_1, 500_000.0, 64)
    assert plan.values is not None
    assert all(value == float(np.float32(value)) for value in plan.values)


def test_scaling_is_read_by_its_old_names_too() -> None:
    old = _rope(rope_theta=5000, rope_scaling={"type": "linear", "factor": 4})
    new = _rope(rope_parameters={"rope_type": "linear", "rope_theta": 5000, "factor": 4})
    assert old == new
    assert [(key, value.value) for key, value in old.metadata("llama")] == [
        ("llama.rope.scaling.type", "linear"),
        ("llama.rope.scaling.factor", 4),
        ("llama.rope.freq_base", 5000),
    ]


def test_yarn_without_its_trained_length_takes_the_context() -> None:
    rope = _rope(rope_scaling={"rope_type": "yarn", "factor": 4.0, "beta_slow": 2})
    assert [key.rpartition(".")[2] for key, _ in rope.metadata("qwen2")] == [
        "type",
        "factor",
        "original_context_length",
        "yarn_beta_slow",
        "freq_base",
    ]
    assert rope.original_context == 512


@pytest.mark.parametrize(
    "values",
    [
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}},
        {"rope_scaling": {"mrope_section": [1, 2, 3], "type": "default"}},
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        {"partial_rotary_factor": 0.5},
        {"rope_scaling": {"type": "yarn"}},
        {"rope_scaling": {"type": "linear", "factor": "4"}},
        {"rope_scaling": {"type": "llama3", "low_freq_factor": 4, "high_freq_factor": 4}},
    ],
)
def test_positions_that_llama_cpp_does_not_compute_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        _rope(**values)


def test_llama3_scaling_of_a_qwen2_is_refused(small: Small) -> None:
    config = small.config(
        architectures=["Qwen2ForCausalLM"], rope_scaling={"rope_type": "llama3", "factor": 8.0}
    )
    with pytest.raises(ExportFailed, match=r"llama.cpp's qwen2 has no llama3 scaling"):
        read_blueprint(small.write(config, small.shapes()))


def test_dynamic_scaling_is_told(small: Small) -> None:
    config = small.config(rope_scaling={"type": "dynamic", "factor": 2.0})
    blueprint = read_blueprint(small.write(config, small.shapes()))
    assert blueprint.notes == ("llama.cpp does not stretch positions beyond 512 tokens here",)
