from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from edgeship.calibration.preprocess import input_from_pixels
from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.errors import ConfigurationError, ExportFailed, IntegrityRefused
from edgeship.exporters.tflite.flatbuffer import read_model, write_model
from edgeship.exporters.tflite.metadata import (
    app_notes,
    read_edgeship_metadata,
    with_metadata,
    without_metadata,
)
from edgeship.vocabulary import ChannelOrder, Layout

SIDE: Final = 8
LABELS: Final = ("rot", "grün", "青")
IDENTITY: Final = {
    "edgeship": "0.1.0",
    "format": "tflite",
    "precision": "fp32",
    "lowered_sha256": "0123456789abcdef" * 4,
}
PREPROCESS: Final = Preprocess(
    size=(SIDE, SIDE), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
CIFAR10: Final = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def flatbuffer(*, is_int8: bool = False, classes: int = 3) -> bytes:
    """One AVERAGE_POOL_2D over the whole image: each channel's mean is the score of its class."""
    kind = schema.TensorType.INT8 if is_int8 else schema.TensorType.FLOAT32
    shapes = {b"image": [1, SIDE, SIDE, classes], b"logits": [1, 1, 1, classes]}
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.AVERAGE_POOL_2D
    code.version = 2
    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = options.filterHeight = options.filterWidth = SIDE
    pool = schema.OperatorT()
    pool.inputs, pool.outputs = [0], [1]
    pool.builtinOptionsType = schema.BuiltinOptions.Pool2DOptions
    pool.builtinOptions = options
    graph = schema.SubGraphT()
    graph.tensors = [tensor(name, shape, kind) for name, shape in shapes.items()]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [pool]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    model.signatureDefs = [signature([b"image"], [b"logits"])]
    return write_model(model)


def tensor(name: bytes, shape: list[int], kind: int) -> object:
    result = schema.TensorT()
    result.name, result.shape, result.type = b"graph/" + name, shape, kind
    if kind == schema.TensorType.INT8:
        result.quantization = schema.QuantizationParametersT()
        result.quantization.scale, result.quantization.zeroPoint = [0.02], [-10]
    return result


def signature(inputs: list[bytes], outputs: list[bytes]) -> object:
    result = schema.SignatureDefT()
    result.signatureKey = b"serving_default"
    result.inputs = [tensor_map(name, index) for index, name in enumerate(inputs)]
    result.outputs = [
        tensor_map(name, index) for index, name in enumerate(outputs, start=len(inputs))
    ]
    return result


def tensor_map(name: bytes, index: int) -> object:
    result = schema.TensorMapT()
    result.name, result.tensorIndex = name, index
    return result


def contract_of(preprocess: Preprocess = PREPROCESS) -> Contract:
    shape = (1, *preprocess.size, preprocess.channels)
    image = TensorSpec(name="image", shape=shape, layout=Layout.NHWC, preprocess=preprocess)
    scores = (1, 1, 1, preprocess.channels)
    logits = TensorSpec(name="logits", shape=scores, labels="labels.txt")
    return Contract(inputs=(image,), outputs=(logits,))


def with_image(**facts: object) -> Contract:
    """The contract with other facts of its image."""
    (image,) = CONTRACT.inputs
    return replace(CONTRACT, inputs=(replace(image, **facts),))  # type: ignore[arg-type]  # by name


CONTRACT: Final = contract_of()
INT8: Final = with_image(dtype="int8", scale=0.02, zero_point=-10)


def described(
    content: bytes, contract: Contract = CONTRACT, labels: tuple[str, ...] | None = LABELS
) -> bytes:
    return with_metadata(content, contract, name="colours", labels=labels, identity=IDENTITY)


@dataclass(frozen=True)
class Table:
    """A flatbuffer table, read by the format's definition (flatbuffers: "Internals")."""

    data: bytes
    position: int

    def place(self, slot: int) -> int | None:
        vtable = self.position - struct.unpack_from("<i", self.data, self.position)[0]
        size = struct.unpack_from("<H", self.data, vtable)[0]
        if 4 + 2 * slot >= size:
            return None
        offset = struct.unpack_from("<H", self.data, vtable + 4 + 2 * slot)[0]
        return self.position + offset if offset else None

    def target(self, slot: int) -> int:
        place = self.place(slot)
        assert place is not None
        return place + int(struct.unpack_from("<I", self.data, place)[0])

    def code(self, slot: int) -> int:
        place = self.place(slot)
        return 0 if place is None else self.data[place]

    def table(self, slot: int) -> Table:
        return Table(self.data, self.target(slot))

    def raw(self, slot: int, itemsize: int) -> bytes:
        start = self.target(slot)
        count = struct.unpack_from("<I", self.data, start)[0]
        return self.data[start + 4 : start + 4 + count * itemsize]

    def text(self, slot: int) -> str:
        return self.raw(slot, 1).decode()

    def floats(self, slot: int) -> list[float]:
        return [float(value) for value in np.frombuffer(self.raw(slot, 4), "<f4")]

    def tables(self, slot: int) -> list[Table]:
        first = self.target(slot) + 4
        offsets = np.frombuffer(self.raw(slot, 4), "<u4")
        return [Table(self.data, first + 4 * i + int(offset)) for i, offset in enumerate(offsets)]


def root(data: bytes) -> Table:
    return Table(data, struct.unpack_from("<I", data)[0])


def entries(content: bytes) -> dict[str, bytes]:
    """Model.metadata is slot 6, Model.buffers slot 4 (TFLite schema.fbs)."""
    model = root(content)
    buffers = model.tables(4)
    found = {}
    for entry in model.tables(6):
        place = entry.place(1)
        assert place is not None
        found[entry.text(0)] = buffers[struct.unpack_from("<I", content, place)[0]].raw(0, 1)
    return found


def standard(content: bytes) -> Table:
    data = entries(content)["TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    return root(data)


def image_of(content: bytes) -> Table:
    return standard(content).tables(3)[0].tables(2)[0]


def color_space(tensor: Table) -> int:
    content = tensor.table(3)
    assert content.code(0) == 2  # ContentProperties.ImageProperties
    return content.table(1).code(0)


def normalization(tensor: Table) -> tuple[list[float], list[float]]:
    (unit,) = tensor.tables(4)
    assert unit.code(0) == 1  # ProcessUnitOptions.NormalizationOptions
    return unit.table(1).floats(0), unit.table(1).floats(1)


def test_the_standard_entry_names_the_model_and_its_tensors() -> None:
    model = standard(described(flatbuffer()))

    assert [model.text(slot) for slot in (0, 1, 2)] == ["colours", "tflite fp32", "0123456789ab"]
    assert model.text(7) == "1.0.0"
    (subgraph,) = model.tables(3)
    assert [found.text(0) for found in subgraph.tables(2)] == ["image"]
    assert [found.text(0) for found in subgraph.tables(3)] == ["logits"]


def test_an_image_is_normalized_from_pixels_of_0_to_255() -> None:
    image = image_of(described(flatbuffer()))

    assert color_space(image) == 1
    mean, std = normalization(image)
    assert mean == pytest.approx([123.675, 116.28, 103.53])
    assert std == pytest.approx([58.395, 57.12, 57.375])
    statistics = image.table(5)
    assert statistics.floats(0) == pytest.approx([2.248908, 2.428571, 2.64], rel=1e-6)
    assert statistics.floats(1) == pytest.approx([-2.117904, -2.035714, -1.804444], rel=1e-6)


Means = st.tuples(*[st.floats(-2, 2, width=32)] * 3)
Deviations = st.tuples(*[st.floats(2**-7, 8, width=32)] * 3)


@given(Means, Deviations, st.sampled_from([ChannelOrder.RGB, ChannelOrder.BGR]))
def test_the_normalization_gives_what_edgeship_feeds(
    mean: tuple[float, ...], std: tuple[float, ...], order: ChannelOrder
) -> None:
    preprocess = replace(PREPROCESS, size=(1, 256), mean=mean, std=std, order=order)
    contract = contract_of(preprocess)
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)

    subtracted, divisor = normalization(image_of(described(flatbuffer(), contract)))

    found = (pixels.astype(np.float64) - subtracted) / divisor
    expected = input_from_pixels(pixels, contract.inputs[0])[0]
    # each of the two rounds at most three times, each time numbers of up to (1 + |mean|) / std
    limit = 6 * 2.0**-24 * (1 + np.abs(mean)) / np.array(std)
    excess = np.abs(found - expected) / limit
    worst = np.unravel_index(excess.argmax(), excess.shape)
    assert excess[worst] <= 1.01, (worst, found[worst], expected[worst])


def test_an_int8_image_is_normalized_as_the_float_one_is() -> None:
    image = image_of(described(flatbuffer(is_int8=True), INT8))

    assert normalization(image) == normalization(image_of(described(flatbuffer())))
    assert image.text(1) == "RGB 8x8, int8"
    assert image.place(5) is None  # the tensor's values are integers, not these


def test_bgr_is_not_passed_off_as_rgb() -> None:
    preprocess = replace(PREPROCESS, order=ChannelOrder.BGR)
    image = image_of(described(flatbuffer(), contract_of(preprocess)))

    assert color_space(image) == 0
    assert image.text(1) == "BGR 8x8, float32"


def test_grey_has_one_mean() -> None:
    grey = Preprocess(size=(SIDE, SIDE), order=ChannelOrder.GRAY, mean=(0.5,), std=(0.25,))
    image = image_of(described(flatbuffer(classes=1), contract_of(grey), ("any",)))

    assert color_space(image) == 2
    assert normalization(image) == ([127.5], [63.75])


@pytest.mark.parametrize("facts", [{"layout": Layout.NCHW}, {"preprocess": None}])
def test_what_no_tool_can_fill_with_an_image_is_no_image(facts: dict[str, object]) -> None:
    tensor = image_of(described(flatbuffer(), with_image(**facts)))

    assert tensor.table(3).code(0) == 1  # ContentProperties.FeatureProperties
    assert tensor.place(4) is None


def test_labels_travel_with_the_output() -> None:
    content = described(flatbuffer())

    (output,) = standard(content).tables(3)[0].tables(3)
    (file,) = output.tables(6)
    assert (file.text(0), file.code(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt").decode() == "rot\ngrün\n青\n"


def test_without_labels_no_file_is_named() -> None:
    content = described(flatbuffer(), labels=None)

    assert standard(content).tables(3)[0].tables(3)[0].place(6) is None
    assert not zipfile.is_zipfile(io.BytesIO(content))


def test_all_wrong_labels_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        described(flatbuffer(), labels=("rot", ""))
    assert [problem.where for problem in caught.value.problems] == ["labels.txt", "labels.txt:2"]


def test_tensors_come_in_the_files_order_not_the_contracts() -> None:
    model = read_model(flatbuffer())
    graph = model.subgraphs[0]
    graph.tensors = [*graph.tensors, tensor(b"mask", [1, 4], schema.TensorType.INT32)]
    graph.inputs = [2, 0]
    model.signatureDefs[0].inputs = [tensor_map(b"image", 0), tensor_map(b"mask", 2)]
    mask = TensorSpec(name="mask", shape=(1, 4), dtype="int32")
    contract = replace(CONTRACT, inputs=(*CONTRACT.inputs, mask))

    (subgraph,) = standard(described(write_model(model), contract)).tables(3)

    assert [found.text(0) for found in subgraph.tables(2)] == ["mask", "image"]


def test_an_input_that_the_contract_lacks_is_refused() -> None:
    other = with_image(name="picture")
    with pytest.raises(ExportFailed, match="expected picture, found image"):
        described(flatbuffer(), other)


def test_the_own_entry_ties_the_file_to_its_build() -> None:
    plain = flatbuffer()
    content = described(plain)

    own = read_edgeship_metadata(content)

    assert own == {
        "schema": 1,
        **IDENTITY,
        "content_sha256": hashlib.sha256(plain).hexdigest(),
    }
    stored = entries(content)["edgeship"]
    assert stored == json.dumps(own, sort_keys=True, separators=(",", ":")).encode()
    assert without_metadata(content) == plain


def test_describing_a_described_file_changes_nothing() -> None:
    content = described(flatbuffer())
    assert described(content) == content


def test_entries_of_others_are_kept() -> None:
    model = read_model(flatbuffer())
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data, entry.name, entry.buffer = np.frombuffer(b"1.14.0", np.uint8), b"runtime", 1
    model.buffers.append(buffer)
    model.metadata = [entry]
    plain = write_model(model)

    content = described(plain)

    assert entries(content)["runtime"] == b"1.14.0"
    assert without_metadata(content) == plain


def test_a_cifar_10_classifier_grows_by_a_thousand_bytes_at_most() -> None:
    plain = flatbuffer(is_int8=True, classes=10)
    logits = TensorSpec(name="logits", shape=(1, 1, 1, 10), dtype="int8", labels="labels.txt")
    contract = replace(INT8, outputs=(logits,))

    assert len(described(plain, contract, CIFAR10)) - len(plain) <= 1000


def test_the_interpreter_computes_the_same_with_and_without() -> None:
    plain = flatbuffer()
    image = np.random.default_rng(1).standard_normal((1, SIDE, SIDE, 3), np.float32)

    np.testing.assert_array_equal(scores(described(plain), image), scores(plain, image))


def scores(content: bytes, image: np.ndarray) -> np.ndarray:
    runner = Interpreter(model_content=content).get_signature_runner()
    return np.asarray(runner(image=image)["logits"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(64), flatbuffer()])
def test_a_file_of_others_has_no_own_entry(content: bytes) -> None:
    assert read_edgeship_metadata(content) is None


@pytest.mark.parametrize(
    "break_entry",
    [
        lambda stored: b"[" + stored[1:-1] + b"]",
        lambda stored: b"\xff" * len(stored),
        lambda stored: b" " * (len(stored) - 2) + b"[]",
    ],
)
def test_an_entry_that_is_no_object_is_refused(break_entry: Callable[[bytes], bytes]) -> None:
    content = described(flatbuffer())
    stored = entries(content)["edgeship"]

    with pytest.raises(IntegrityRefused, match="build the artifact again"):
        read_edgeship_metadata(content.replace(stored, break_entry(stored)))


@given(st.data())
def test_damaged_tables_raise_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(described(flatbuffer(), labels=None))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(8, len(damaged)))

    try:
        found = read_edgeship_metadata(bytes(damaged[:cut]))
    except IntegrityRefused:
        return
    assert found is None or isinstance(found, dict)


# Google's own readers, in the last release of tflite-support: its metadata library and its Task
# Library. The audio tasks load PortAudio on import, and all of it links to libusb for Coral.
REFERENCE: Final = """
import ctypes, json, sys, types
try:
    import libusb_package
    ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
    sys.modules["sounddevice"] = types.ModuleType("sounddevice")
    from tflite_support import metadata
    from tflite_support.task import vision
except ImportError as error:
    sys.exit(f"missing: {error}")
import numpy as np
from tflite_runtime.interpreter import Interpreter

path, image = sys.argv[1:]
displayer = metadata.MetadataDisplayer.with_model_file(path)
files = displayer.get_packed_associated_file_list()
with open(path, "rb") as file:
    populator = metadata.MetadataPopulator.with_model_buffer(bytearray(file.read()))
populator.load_metadata_buffer(bytearray(displayer.get_metadata_buffer()))
populator.populate()
again = metadata.MetadataDisplayer.with_model_buffer(populator.get_model_buffer())
interpreter = Interpreter(path)
interpreter.allocate_tensors()
try:
    classifier = vision.ImageClassifier.create_from_file(path)
    pixels = vision.TensorImage.create_from_array(np.load(image))
    (head,) = classifier.classify(pixels).classifications
    classes = [[found.category_name, found.score] for found in head.categories]
except ValueError as error:
    classes = str(error)
print(json.dumps({
    "metadata": json.loads(displayer.get_metadata_json()),
    "populated": json.loads(again.get_metadata_json()),
    "files": {name: displayer.get_associated_file_buffer(name).decode() for name in files},
    "signatures": interpreter.get_signature_list(),
    "classes": classes,
}))
"""


@pytest.fixture
def reference(tmp_path: Path) -> Callable[[bytes, np.ndarray], dict[str, Any]]:
    """What tflite-support and the Task Library say of a file, and of an image uint8[H, W, 3]."""
    ours = Path(__file__).parents[3] / ".cache" / "tflite" / "bin" / "python"
    python = Path(os.environ.get("EDGESHIP_TFLITE_RUNTIME", ours))
    if not python.exists():
        pytest.skip("tflite-support is absent: make fixtures")

    def ask(content: bytes, image: np.ndarray) -> dict[str, Any]:
        model, pixels = tmp_path / "model.tflite", tmp_path / "image.npy"
        model.write_bytes(content)
        np.save(pixels, image)
        command = [str(python), "-c", REFERENCE, str(model), str(pixels)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if "missing: " in done.stderr:
            pytest.skip(f"{done.stderr.strip()}: make fixtures")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return ask


@pytest.fixture(scope="module")
def bluish() -> np.ndarray:
    pixels = np.random.default_rng(7).integers(0, 128, (SIDE, SIDE, 3), np.uint8)
    pixels[:, :, 1] += 60
    pixels[:, :, 2] += 120
    return pixels


@pytest.mark.slow
def test_the_task_library_classifies_with_our_normalization_and_labels(
    reference: Callable[[bytes, np.ndarray], dict[str, Any]], bluish: np.ndarray
) -> None:
    found = reference(described(flatbuffer()), bluish)

    means = input_from_pixels(bluish, CONTRACT.inputs[0]).mean((0, 1, 2))
    ranked = sorted(zip(LABELS, means.tolist(), strict=True), key=lambda pair: -pair[1])
    expected = [pair for pair in ranked if pair[1] >= 0]  # its default threshold
    assert [name for name, _ in found["classes"]] == [name for name, _ in expected]
    assert found["classes"][0][0] == "青"
    # a sum of 64 numbers up to 2.7 in float32, over 64
    np.testing.assert_allclose(
        [score for _, score in found["classes"]], [score for _, score in expected], atol=1e-5
    )


@pytest.mark.parametrize(
    ("contract", "words"),
    [
        (INT8, ["is int8"]),
        (CONTRACT, ["differ by channel"]),
        (contract_of(Preprocess(size=(8, 8))), []),
        (contract_of(Preprocess(size=(8, 8), order=ChannelOrder.BGR)), ["is BGR"]),
        (with_image(layout=None, preprocess=None), []),
    ],
)
def test_what_a_ready_made_classifier_refuses_is_told(contract: Contract, words: list[str]) -> None:
    notes = list(app_notes(contract))
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("contract", [CONTRACT, INT8], ids=["fp32", "int8"])
def test_tflite_support_accepts_and_reads_all_that_was_written(
    reference: Callable[[bytes, np.ndarray], dict[str, Any]],
    bluish: np.ndarray,
    contract: Contract,
) -> None:
    content = described(flatbuffer(is_int8=contract is INT8), contract)
    found = reference(content, bluish)

    assert found["populated"] == found["metadata"]  # its validation and its own parser version
    assert found["files"] == {"labels.txt": "rot\ngrün\n青\n"}
    (subgraph,) = found["metadata"]["subgraph_metadata"]
    (image,), (logits,) = subgraph["input_tensor_metadata"], subgraph["output_tensor_metadata"]
    assert image["content"]["content_properties"] == {"color_space": "RGB"}
    (unit,) = image["process_units"]
    assert unit["options"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert logits["associated_files"] == [{"name": "labels.txt", "type": "TENSOR_AXIS_LABELS"}]
    assert list(found["signatures"]) == ["serving_default"]


@pytest.mark.slow
def test_the_task_library_has_no_int8_images(
    reference: Callable[[bytes, np.ndarray], dict[str, Any]], bluish: np.ndarray
) -> None:
    found = reference(described(flatbuffer(is_int8=True), INT8), bluish)
    assert "Type mismatch for input tensor" in found["classes"]
