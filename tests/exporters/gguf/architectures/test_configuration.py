from __future__ import annotations

from pathlib import Path

import pytest

from edgeship.errors import ConfigurationError
from edgeship.exporters.gguf.architectures.configuration import (
    Configuration,
    read_configuration,
)


def _of(value: object) -> Configuration:
    return Configuration({"key": value}, "config.json")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("count", -1),
        ("count", 1.0),
        ("count", True),
        ("count", 1 << 31),
        ("count", None),
        ("number", "1"),
        ("number", float("nan")),
        ("number", True),
        ("texts", "LlamaForCausalLM"),
        ("texts", [1]),
    ],
)
def test_value_of_another_kind_is_refused_with_its_key(kind: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"config.json: key: "):
        getattr(_of(value), kind)("key")


def test_null_counts_as_left_out() -> None:
    configuration = _of(None)
    assert configuration.count("key", 3) == 3
    assert configuration.flag("key", default=True)
    assert configuration.per_layer("key", 2) is None
    assert not configuration.has("key")
    assert configuration.section("key") is None


@pytest.mark.parametrize(("value", "expected"), [(3, 3), ([3, 0], (3, 0)), (None, None)])
def test_counts_of_layers_are_one_or_one_each(value: object, expected: object) -> None:
    assert _of(value).per_layer("key", 2) == expected


@pytest.mark.parametrize("value", [[3], [3, 3, 3], [3, "3"], [3, -1], {}])
def test_lists_of_another_length_or_kind_are_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"config.json: key: "):
        _of(value).per_layer("key", 2)


def test_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config.json: the file cannot be read"):
        read_configuration(tmp_path)
