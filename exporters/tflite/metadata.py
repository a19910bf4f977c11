"""Metadata of a .tflite: what Android's tools read, and which build the file came from.

Model.metadata gets two entries. "TFLITE_METADATA" is the standard one (metadata_tables.py): names,
normalization, labels. "edgeship" is canonical JSON and ties the file to its build.

Any tool can read the standard entry; to run the model by it alone is another matter: `app_notes`.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from edgeship.contract import Contract, TensorSpec
from edgeship.digests import canonical_json
from edgeship.errors import ConfigurationError, ExportFailed, IntegrityRefused, Problem
from edgeship.exporters.tflite.associated import label_problems, labels_file, with_files
from edgeship.exporters.tflite.flatbuffer import (
    ModelT,
    SubGraphT,
    read_model,
    tensor_name,
    write_model,
)
from edgeship.exporters.tflite.metadata_tables import (
    ColorSpace,
    ModelMetadata,
    TensorMetadata,
    metadata_buffer,
)
from edgeship.vocabulary import ChannelOrder, Layout

STANDARD_ENTRY: Final = "TFLITE_METADATA"
"""TFLite metadata, "Model with metadata format"."""
OWN_ENTRY: Final = "edgeship"
_SCHEMA: Final = 1
_FILE_IDENTIFIER: Final = b"TFL3"
"""TFLite schema; a flatbuffer's identifier is its bytes 4 to 8."""
_UNREADABLE: Final = (ValueError, TypeError, AttributeError, RecursionError, struct.error)
"""What flatbuffers and json raise on offsets that lead out of the file, and on other text."""
_PIXEL: Final = 255
"""Largest uint8: edgeship divides by it before it normalizes, TFLite's tools do not."""
_COLOR_SPACES: Final[Mapping[ChannelOrder, ColorSpace]] = {
    ChannelOrder.RGB: ColorSpace.RGB,
    ChannelOrder.GRAY: ColorSpace.GRAYSCALE,
    ChannelOrder.BGR: ColorSpace.UNKNOWN,  # has no name in the schema; as RGB, reds would be blues
}


def with_metadata(
    content: bytes,
    contract: Contract,
    *,
    name: str,
    labels: tuple[str, ...] | None,
    identity: Mapping[str, object],
) -> bytes:
    """The file with both entries and the labels file; equal arguments give equal bytes.

    Args:
        content: The emitted flatbuffer; what edgeship wrote there before is replaced.
        contract: As of the file: an integer input has its dtype, scale and zero point.
        name: Of the model.
        labels: Lines of the labels file, one a class, for each output that names such a file.
        identity: The own entry but for `schema` and `content_sha256`: edgeship, format, precision,
            lowered_sha256.

    Raises:
        ConfigurationError: An app would read other labels than these.
        ExportFailed: The file has an input or output that the contract lacks.
    """
    model = _bare(content)
    files = _associated_files(contract, labels)
    digest = hashlib.sha256(write_model(model)).hexdigest()
    own = {"schema": _SCHEMA, **identity, "content_sha256": digest}
    standard = ModelMetadata(
        name=name,
        description=" ".join(str(own[key]) for key in ("format", "precision") if key in own),
        version=str(own.get("lowered_sha256", ""))[:12],
        inputs=_tensors(model, contract.inputs, "inputs", files),
        outputs=_tensors(model, contract.outputs, "outputs", files),
    )
    _add_entry(model, STANDARD_ENTRY, metadata_buffer(standard))
    _add_entry(model, OWN_ENTRY, canonical_json(own))
    return with_files(write_model(model), files)


def without_metadata(content: bytes) -> bytes:
    """The flatbuffer without what `with_metadata` added: its sha256 is `content_sha256`."""
    return write_model(_bare(content))


def read_edgeship_metadata(content: bytes) -> dict[str, object] | None:
    """The file's own entry; None where it has none, or is no TFLite file.

    Raises:
        IntegrityRefused: The entry is there and no JSON object, or the tables are broken.
    """
    try:
        stored = _entry(content, OWN_ENTRY)
        value = None if stored is None else json.loads(stored)
    except _UNREADABLE as error:
        raise IntegrityRefused(_broken(str(error))) from error
    if value is not None and not isinstance(value, dict):
        raise IntegrityRefused(_broken(f"a JSON {type(value).__name__}"))
    return value


def app_notes(contract: Contract) -> Iterator[str]:
    """Why an app's ready-made classifier would refuse the file, which the interpreter runs.

    Measured with MediaPipe Tasks 1.2.2 and the Task Library of tflite-support 0.4.4. Their words:
    "Type mismatch for input tensor", "Per-channel image normalization is not available" (MediaPipe
    alone), "Only RGB color space is supported for now".
    """
    for spec in filter(_is_image, contract.inputs):
        preprocess = spec.preprocess
        assert preprocess is not None  # an image has it
        input_ = f"input {spec.name!r}"
        if spec.dtype not in ("float32", "uint8"):
            yield (
                f"{input_} is {spec.dtype}: MediaPipe Tasks and the Task Library take images as "
                "float32 or uint8 only; feed it through the interpreter"
            )
        elif len({*zip(preprocess.mean, preprocess.std, strict=True)}) > 1:
            yield f"{input_}: MediaPipe Tasks takes no mean and std that differ by channel"
        if preprocess.order is not ChannelOrder.RGB:
            yield f"{input_} is {preprocess.order}: MediaPipe Tasks and the Task Library take RGB"


def _bare(content: bytes) -> ModelT:
    """The tables without our entries and, at the end of the list, their buffers."""
    model = read_model(content)
    names = (STANDARD_ENTRY.encode(), OWN_ENTRY.encode())
    entries = model.metadata or []
    ours = {entry.buffer for entry in entries if entry.name in names}
    # None, not []: an absent vector and an empty one are different bytes
    model.metadata = [entry for entry in entries if entry.name not in names] or None
    while len(model.buffers) - 1 in ours:
        model.buffers.pop()
    return model


def _add_entry(model: ModelT, name: str, data: bytes) -> None:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    entry.name, entry.buffer = name.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]


def _entry(content: bytes, name: str) -> bytes | None:
    """Bytes of one entry, read in place: a large model is not unpacked."""
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != _FILE_IDENTIFIER:
        return None
    model = schema.Model.GetRootAs(content)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == name.encode():
            data = model.Buffers(entry.Buffer()).DataAsNumpy()
            return b"" if isinstance(data, int) else bytes(data)  # 0: the vector is absent
    return None


def _associated_files(contract: Contract, labels: tuple[str, ...] | None) -> dict[str, bytes]:
    named = [spec for spec in contract.outputs if spec.labels is not None]
    if labels is None or not named:
        return {}
    problems = [
        problem
        for spec in named
        for problem in label_problems(labels, spec.shape[-1], str(spec.labels))
    ]
    if problems:
        raise ConfigurationError(*problems)
    return {str(spec.labels): labels_file(labels) for spec in named}


def _tensors(
    model: ModelT, specs: Sequence[TensorSpec], side: str, files: Mapping[str, bytes]
) -> tuple[TensorMetadata, ...]:
    """One for each tensor of the side, in the file's order, which may not be the contract's."""
    subgraph = model.subgraphs[0]
    signatures = model.signatureDefs or []
    names = {
        entry.tensorIndex: entry.name.decode()
        for signature in signatures[:1]
        for entry in getattr(signature, side) or ()
    }
    by_name = {spec.name: spec for spec in specs}
    found = [names.get(index) or _name(subgraph, index) for index in getattr(subgraph, side)]
    if sorted(found) != sorted(by_name):
        problem = Problem(
            where="tflite",
            what=f"the file's {side} are not the contract's",
            expected=", ".join(by_name),
            found=", ".join(found),
            remedy="report this as a defect of edgeship",
        )
        raise ExportFailed(problem)
    return tuple(_tensor(by_name[name], files) for name in found)


def _name(subgraph: SubGraphT, index: int) -> str:
    return tensor_name(subgraph.tensors[index])


def _tensor(spec: TensorSpec, files: Mapping[str, bytes]) -> TensorMetadata:
    if _is_image(spec):
        return _image(spec)
    return TensorMetadata(name=spec.name, labels=spec.labels if spec.labels in files else None)


def _is_image(spec: TensorSpec) -> bool:
    """Whether tools can put an image into it: they know no other layout than NHWC."""
    return spec.preprocess is not None and spec.layout is Layout.NHWC


def _image(spec: TensorSpec) -> TensorMetadata:
    """An image input: x = (pixel - mean) / std with pixels of 0..255, not of 0..1.

    An integer file has the same mean and std as the float one; quantizing by the tensor's scale and
    zero point comes after (metadata_schema.fbs, table NormalizationOptions). The range is that of
    x, which an integer tensor does not hold: there it is left out, as tflite-support does.
    """
    preprocess = spec.preprocess
    assert preprocess is not None  # an image has it
    height, width = preprocess.size
    mean = tuple(value * _PIXEL for value in preprocess.mean)
    std = tuple(value * _PIXEL for value in preprocess.std)
    is_float = spec.scale is None
    return TensorMetadata(
        name=spec.name,
        description=f"{preprocess.order} {width}x{height}, {spec.dtype}",
        color_space=_COLOR_SPACES[preprocess.order],
        mean=mean,
        std=std,
        minimum=_normalized(0, mean, std) if is_float else (),
        maximum=_normalized(_PIXEL, mean, std) if is_float else (),
    )


def _normalized(pixel: int, mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((pixel - m) / s for m, s in zip(mean, std, strict=True))


def _broken(found: str) -> Problem:
    return Problem(
        where=f"tflite: metadata entry {OWN_ENTRY!r}",
        what="the entry cannot be read",
        expected="a JSON object",
        found=found,
        remedy="build the artifact again",
    )
