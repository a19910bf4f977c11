from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeship.errors import ConfigurationError
from edgeship.exporters.gguf.architectures.general import general_metadata
from edgeship.exporters.gguf.blueprint import ValueType


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "Tiny-Llama-5M-Chat"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def _values(directory: Path, weights: int = 5_000_000) -> dict[str, Any]:
    return {key: value.value for key, value in general_metadata(directory, "llama", weights)}


def test_name_of_the_directory_names_the_model(directory: Path) -> None:
    assert list(_values(directory).items()) == [
        ("general.architecture", "llama"),
        ("general.type", "model"),
        ("general.name", "Tiny Llama 5M Chat"),
        ("general.finetune", "Chat"),
        ("general.basename", "Tiny-Llama"),
        ("general.size_label", "5M"),
    ]


def test_size_is_rounded_from_the_weights(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    assert _values(tmp_path / "net", 5_770_000)["general.size_label"] == "5.8M"


def test_directory_of_the_shell_has_a_name_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    assert _values(Path())["general.name"] == "Tiny Llama 5M Chat"


def test_sampling_comes_first_with_the_types_of_the_converter(directory: Path) -> None:
    sampling = {"temperature": 1, "top_k": 20, "repetition_penalty": 1.1}
    (directory / "generation_config.json").write_text(json.dumps(sampling))
    metadata = general_metadata(directory, "llama", 1000)
    assert [(key.rpartition(".")[2], value.type, value.value) for key, value in metadata[2:5]] == [
        ("top_k", ValueType.INT32, 20),
        ("temp", ValueType.FLOAT32, 1),
        ("penalty_repeat", ValueType.FLOAT32, 1.1),
    ]


def test_arrays_have_the_type_of_their_items(directory: Path) -> None:
    (directory / "README.md").write_text("---\nlanguage: [en, de]\n---\n")
    languages = dict(general_metadata(directory, "llama", 1000))["general.languages"]
    assert (languages.type, languages.item) == (ValueType.ARRAY, ValueType.STRING)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("README.md", "---\nlicense: [mit\n---\n"),
        ("generation_config.json", '{"top_k": "many"}'),
        ("generation_config.json", '{"top_k": 1.5}'),
    ],
)
def test_files_that_cannot_be_understood_are_told(directory: Path, file: str, content: str) -> None:
    (directory / file).write_text(content)
    with pytest.raises(ConfigurationError, match=r"README.md or generation_config.json"):
        general_metadata(directory, "llama", 1000)
