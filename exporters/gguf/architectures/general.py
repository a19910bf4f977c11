"""General metadata: what the model is called, who made it, how it likes to be sampled.

gguf's own `Metadata` guesses it from `README.md`, `config.json`, `generation_config.json` and the
name of the directory, as llama.cpp's converter does, so that the file is the same byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeship.errors import ConfigurationError, Problem, RequirementMissing
from edgeship.exporters.gguf.blueprint import Metadata, MetadataValue, Scalar, ValueType

if TYPE_CHECKING:
    import gguf

_PYTHON_TYPES: Final[Mapping[ValueType, type[Scalar] | tuple[type[Scalar], ...]]] = {
    ValueType.STRING: str,
    ValueType.BOOL: bool,
    ValueType.UINT32: int,
    ValueType.INT32: int,
    ValueType.FLOAT32: (float, int),
}
"""Of the types that general keys have in gguf's writer."""


def general_metadata(directory: Path, architecture: str, weights: int) -> Metadata:
    """The keys from `general.architecture` to the last that begins with `general.`.

    Where nothing else names the model, its directory does; where nothing else tells its size,
    the number of `weights` in the file does, rounded.

    Raises:
        ConfigurationError: The model card or the generation configuration cannot be read.
        RequirementMissing: gguf is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise RequirementMissing(
            Problem(
                where="gguf",
                what="the package is not installed",
                remedy='install it: pip install "edgeship[gguf]"',
            )
        ) from error
    writer = gguf.GGUFWriter(None, architecture)
    named = directory.resolve() if directory.name in ("", "..") else directory
    try:
        known = _load(gguf.Metadata, named, weights)
        known.name = named.name if known.name is None else known.name
        if known.size_label is None:
            known.size_label = gguf.size_label(weights, weights, 0, 0)
        writer.add_type(gguf.GGUFType.MODEL)
        known.set_gguf_meta_model(writer)
        return tuple((key, _value(entry)) for key, entry in writer.kv_data[0].items())
    except Exception as error:  # a YAML error, or text where a number should be: gguf checks none
        raise ConfigurationError(
            Problem(
                where=str(directory),
                what="README.md or generation_config.json cannot be understood",
                found=f"{type(error).__name__}: {error}",
                remedy="correct the block between the --- lines of README.md, or remove the file",
            )
        ) from error


def _load(metadata: type[gguf.Metadata], directory: Path, weights: int) -> gguf.Metadata:
    """As gguf does, and the repetition penalty by the name that transformers gives it.

    Later versions of gguf, one of which llama.cpp vendors, read that name too.
    """
    known = metadata.load(None, directory, None, weights)
    generation = metadata.load_generation_config(directory)
    if known.sampling_penalty_repeat is None and "penalty_repeat" not in generation:
        known.sampling_penalty_repeat = generation.get("repetition_penalty")
    return known


def _value(entry: Any) -> MetadataValue:  # noqa: ANN401 - gguf.GGUFValue, which is not exported
    """The value as the writer would store it; refuses what only the storing would find out.

    Raises:
        TypeError: The value is not of its type.
    """
    from gguf import GGUFValueType

    kind = ValueType(int(entry.type))
    if kind is not ValueType.ARRAY:
        return MetadataValue(type=kind, value=_checked(entry.value, kind))
    item = ValueType(int(entry.sub_type or GGUFValueType.get_type(entry.value[0])))
    items = tuple(_checked(value, item) for value in entry.value)
    return MetadataValue(type=kind, value=items, item=item)


def _checked(value: object, kind: ValueType) -> Scalar:
    expected = _PYTHON_TYPES[kind]
    if isinstance(value, expected) and isinstance(value, bool) == (kind is ValueType.BOOL):
        return value
    message = f"{value!r} where {kind.name} is stored"
    raise TypeError(message)
