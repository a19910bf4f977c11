import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgeship.exporters.tflite.flatbuffer import operator_name, operators, read_model, write_model
from edgeship.exporters.tflite.version_rules import RULES
from edgeship.exporters.tflite.version_table import first_litert, first_tensorflow, release_key
from edgeship.exporters.tflite.versions import minimum_runtime, set_minimum_runtime, set_versions

CACHE: Final = Path(__file__).parents[3] / ".cache"
ROUND_TRIP: Final = """
import sys
from pathlib import Path
from tensorflow.lite.python import convert

for name in sys.argv[1:]:
    file = Path(name)
    file.with_suffix(".tf").write_bytes(convert.mlir_sparsify(file.read_bytes()))
"""
"""TensorFlow reads each file and writes it again, with versions of its own."""
KNOWN: Final = """
import json
import sys
from pathlib import Path
from tflite_runtime.interpreter import Interpreter

known = []
for file in Path(sys.argv[1]).iterdir():
    try:
        Interpreter(model_content=file.read_bytes())
        known.append(file.name)
    except ValueError:
        pass
print(json.dumps(known))
"""

Spec = tuple[str, tuple[int, ...]]


def tensor(kind: str, shape: Sequence[int], scales: Sequence[float] = ()) -> Any:  # noqa: ANN401 - the vendor has no types
    made = schema.TensorT()
    made.name, made.type, made.shape = b"", getattr(schema.TensorType, kind), list(shape)
    if scales:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = list(scales)
        made.quantization.zeroPoint = [0] * len(scales)
    return made


def code(name: str, version: int = 1) -> Any:  # noqa: ANN401 - see tensor
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, name)
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)
    made.version = version
    return made


def file_of(*uses: tuple[str, Sequence[Any], Any], options: object = None) -> Any:  # noqa: ANN401 - see tensor
    """Operators side by side, each with tensors of its own, all of version 1 and of one code."""
    model, subgraph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], [subgraph]
    names = list(dict.fromkeys(name for name, _, _ in uses))
    model.operatorCodes = [code(name) for name in names]
    subgraph.tensors, subgraph.operators = [], []
    for name, inputs, output in uses:
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.builtinOptions = names.index(name), options
        first = len(subgraph.tensors)
        operator.inputs = [
            -1 if item is None else first + position for position, item in enumerate(inputs)
        ]
        operator.outputs = [first + len(inputs)]
        subgraph.tensors += [tensor("INT8", ()) if item is None else item for item in inputs]
        subgraph.tensors.append(output)
        subgraph.operators.append(operator)
    subgraph.inputs, subgraph.outputs = [0], [len(subgraph.tensors) - 1]
    return model


def versions_of(model: Any) -> dict[str, int]:  # noqa: ANN401 - see tensor
    """By operator, the highest version; TensorFlow writes no other."""
    found: dict[str, int] = {}
    for _, operator in operators(model):
        name = operator_name(model, operator)
        version = int(model.operatorCodes[operator.opcodeIndex].version)
        found[name] = max(version, found.get(name, 0))
    return found


def written_runtime(model: Any) -> str:  # noqa: ANN401 - see tensor
    (entry,) = [item for item in model.metadata if item.name == b"min_runtime_version"]
    data = bytes(model.buffers[entry.buffer].data)
    assert len(data) == 16
    return data.rstrip(b"\0").decode()


def options(kind: str, **fields: object) -> Any:  # noqa: ANN401 - see tensor
    made = getattr(schema, f"{kind}T")()
    for name, value in fields.items():
        assert hasattr(made, name)
        setattr(made, name, value)
    return made


IMAGE: Final = (1, 8, 8, 4)
FLOAT, BYTE, SHORT = (tensor(kind, IMAGE, ()) for kind in ("FLOAT32", "INT8", "INT16"))
KERNEL: Final = (6, 3, 3, 4)
LINEAR: Final = options("FullyConnectedOptions")


@pytest.mark.parametrize(
    ("name", "inputs", "output", "option", "version", "release"),
    [
        ("CONV_2D", [FLOAT, tensor("FLOAT32", KERNEL)], FLOAT, None, 1, "1.5.0"),
        ("CONV_2D", [BYTE, tensor("INT8", KERNEL)], BYTE, None, 3, "1.14.0"),
        ("CONV_2D", [FLOAT, tensor("INT8", KERNEL, [1])], FLOAT, None, 2, "1.14.0"),
        ("CONV_2D", [FLOAT, tensor("INT8", KERNEL, [1] * 6)], FLOAT, None, 5, "2.4.0"),
        ("CONV_2D", [BYTE, tensor("INT8", (6, 3, 3, 2))], BYTE, None, 6, "2.9.0"),
        (
            "DEPTHWISE_CONV_2D",
            [FLOAT, tensor("INT8", (1, 3, 3, 4), [1] * 4)],
            FLOAT,
            options("DepthwiseConv2DOptions", dilationWFactor=1, dilationHFactor=1),
            6,
            "2.3.0",
        ),
        (
            "DEPTHWISE_CONV_2D",
            [FLOAT, tensor("FLOAT32", (1, 3, 3, 4))],
            FLOAT,
            options("DepthwiseConv2DOptions", dilationWFactor=2, dilationHFactor=2),
            2,
            "1.12.0",
        ),
        ("FULLY_CONNECTED", [BYTE, tensor("INT8", (5, 4)), None], BYTE, LINEAR, 4, "1.14.0"),
        ("FULLY_CONNECTED", [BYTE, tensor("INT8", (5, 4))], BYTE, LINEAR, 6, "2.1.0"),
        (
            "FULLY_CONNECTED",
            [FLOAT, tensor("INT8", (5, 4), [1] * 5), None],
            FLOAT,
            LINEAR,
            12,
            "2.17.0",
        ),
        ("FULLY_CONNECTED", [FLOAT, tensor("INT8", (5, 4), [1]), None], FLOAT, LINEAR, 3, "1.14.0"),
        (
            "MUL",
            [tensor("INT8", IMAGE, [2.0]), tensor("INT8", IMAGE, [0.5])],
            tensor("INT8", IMAGE, [1.0]),
            None,
            3,
            "1.15.0",
        ),
        (
            "MUL",
            [tensor("INT8", IMAGE, [2.0]), tensor("INT8", IMAGE, [0.5])],
            tensor("INT8", IMAGE, [1.1]),
            None,
            2,
            "1.14.0",
        ),
        ("TRANSPOSE", [tensor("INT8", (1,) * 5)], tensor("INT8", (1,) * 5), None, 4, "2.3.0"),
        ("GELU", [BYTE], BYTE, None, 2, "2.9.0"),
        ("BROADCAST_TO", [FLOAT], FLOAT, None, 2, "2.5.0"),
        (
            "RESIZE_BILINEAR",
            [BYTE],
            BYTE,
            options("ResizeBilinearOptions", halfPixelCenters=True),
            3,
            "2.2.0",
        ),
        ("GATHER_ND", [tensor("BOOL", IMAGE), tensor("INT32", (1, 4))], BYTE, None, 5, "2.16.0"),
        ("SQRT", [BYTE], BYTE, None, 2, "2.21.0"),
        ("DIV", [BYTE, BYTE], BYTE, None, 1, "1.6.0"),
        (
            "SUB",
            [tensor("FLOAT32", (1,) * 5), tensor("FLOAT32", (2, 1, 1, 1, 1))],
            FLOAT,
            options("SubOptions"),
            3,
            "2.3.0",
        ),
    ],
)
def test_an_operator_gets_the_version_of_its_types_shapes_and_options(
    name: str,
    inputs: Sequence[Any],
    output: Any,  # noqa: ANN401 - see tensor
    option: object,
    version: int,
    release: str,
) -> None:
    model = file_of((name, inputs, output), options=option)
    assert set_versions(model) == ()
    assert versions_of(model) == {name: version}
    assert set_minimum_runtime(model) == release
    assert written_runtime(model) == release


def test_two_uses_that_differ_get_operator_codes_of_their_own() -> None:
    model = file_of(
        ("TRANSPOSE", [BYTE], BYTE),
        ("TRANSPOSE", [FLOAT], FLOAT),
        ("TRANSPOSE", [BYTE], BYTE),
    )
    model.operatorCodes.append(code("DIV", version=2))  # of no operator
    set_versions(model)
    found = [
        int(model.operatorCodes[operator.opcodeIndex].version) for _, operator in operators(model)
    ]
    assert found == [2, 1, 2]
    assert [int(item.version) for item in model.operatorCodes] == [2, 1]


def test_a_version_that_is_higher_already_stays() -> None:
    model = file_of(("CONV_2D", [FLOAT, tensor("FLOAT32", KERNEL)], FLOAT))
    model.operatorCodes[0].version = 8
    set_versions(model)
    assert versions_of(model) == {"CONV_2D": 8}
    assert minimum_runtime(model) == "2.15.0"


def test_an_operator_without_a_rule_keeps_its_version_and_is_named() -> None:
    model = file_of(("SVDF", [BYTE], BYTE), ("RELU", [BYTE], BYTE))
    model.operatorCodes[0].version = 3
    assert set_versions(model) == ("SVDF",)
    assert versions_of(model) == {"SVDF": 3, "RELU": 2}


def test_the_entry_that_is_there_is_overwritten() -> None:
    model = file_of(("GELU", [BYTE], BYTE))
    set_minimum_runtime(model)
    buffers = len(model.buffers)
    set_versions(model)
    model.operatorCodes[0] = code("CONV_2D", version=8)
    set_minimum_runtime(model)
    assert written_runtime(read_model(write_model(model))) == "2.15.0"
    assert (len(model.buffers), len(model.metadata)) == (buffers, 1)


def test_versions_are_set_once() -> None:
    def content() -> bytes:
        model = file_of(("TRANSPOSE", [BYTE], BYTE), ("TRANSPOSE", [FLOAT], FLOAT))
        set_versions(model)
        set_minimum_runtime(model)
        return write_model(model)

    again = read_model(content())
    set_versions(again)
    set_minimum_runtime(again)
    assert write_model(again) == content()


def files_of_one_code(directory: Path) -> dict[str, tuple[str, int]]:
    """One file for each version of each operator that has rules, and one version more."""
    files = {}
    for name in RULES:
        for version in range(1, 17):
            model = file_of(("ADD", [FLOAT], FLOAT))
            model.subgraphs[0].operators, model.operatorCodes = [], [code(name, version)]
            (directory / f"{name}.{version}").write_bytes(write_model(model))
            files[f"{name}.{version}"] = (name, version)
            if first_tensorflow(name, version) is None and version > 2:
                break
    return files


def test_what_tflite_runtime_knows_is_what_the_table_says(tmp_path: Path) -> None:
    python = CACHE / "tflite/bin/python"
    if not python.exists():
        pytest.skip("no tflite-runtime 2.14.0: make fixtures")
    files = files_of_one_code(tmp_path)
    done = subprocess.run(
        [python, "-c", KNOWN, str(tmp_path)], capture_output=True, text=True, check=True
    )
    expected = {
        file
        for file, use in files.items()
        if (release := first_tensorflow(*use)) is not None and release_key(release) <= (2, 14, 0)
    }
    assert set(json.loads(done.stdout)) == expected


def test_litert_knows_what_the_table_says(tmp_path: Path) -> None:
    for file, use in files_of_one_code(tmp_path).items():
        release = first_litert(*use)
        if release is None:
            with pytest.raises(ValueError, match="Didn't find op"):
                Interpreter(model_content=(tmp_path / file).read_bytes())
        else:
            Interpreter(model_content=(tmp_path / file).read_bytes())


@pytest.fixture(scope="module")
def quantized_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Nets of three kinds in float, and in every precision that ai-edge-quantizer has."""
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    directory = tmp_path_factory.mktemp("quantized")
    generator = np.random.default_rng(0)
    files = []
    for name, (net, inputs) in nets().items():
        file = directory / f"{name}.tflite"
        litert_torch.convert(net.eval(), (inputs,)).export(str(file))
        shape = tuple(inputs.shape)
        samples = [
            {"args_0": generator.standard_normal(shape).astype(np.float32)} for _ in range(3)
        ]
        files.append(file)
        for precision, rules in {
            "int8": recipe.static_wi8_ai8(),
            "int16": recipe.static_wi8_ai16(),
            "dynamic": recipe.dynamic_wi8_afp32(),
        }.items():
            made = quantizer.Quantizer(str(file))
            made.load_quantization_recipe(rules)
            ranges = (
                made.calibrate({"serving_default": samples}) if precision != "dynamic" else None
            )
            target = directory / f"{name}-{precision}.tflite"
            made.quantize(ranges).export_model(str(target))
            files.append(target)
    return files


def nets() -> Mapping[str, tuple[Any, Any]]:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    class Excited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3, 2, 1)
            self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
            self.grouped = nn.Conv2d(8, 8, 1, groups=2)
            self.squeeze = nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = F.hardswish(self.depthwise(F.relu6(self.conv(x))))
            x = x * F.hardsigmoid(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
            x = F.max_pool2d(self.grouped(x) + x, 2)
            return F.softmax(self.head(x.mean((2, 3))), -1)

    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(4, 8, 3, 2, 1)
            self.up = nn.ConvTranspose2d(8, 4, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.cat(
                [
                    self.up(F.leaky_relu(self.down(x))),
                    F.pad(x[:, :2], (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
                ],
                1,
            )
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            return F.interpolate(y, scale_factor=2).sigmoid()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
            self.norm = nn.LayerNorm(16)
            self.widen = nn.Linear(16, 32)
            self.narrow = nn.Linear(32, 16, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(x + self.attention(x, x, x)[0])
            x = x + self.narrow(F.gelu(self.widen(x)))
            return F.normalize(x.mean(1), dim=-1).tanh() * x.std(1)

    torch.manual_seed(0)
    image, tokens = torch.zeros(1, 4, 16, 16), torch.zeros(1, 6, 16)
    return {
        "excited": (Excited(), image),
        "segmenter": (Segmenter(), image),
        "encoder": (Encoder(), tokens),
    }


@pytest.mark.slow
def test_versions_are_those_that_tensorflow_writes(quantized_files: list[Path]) -> None:
    python = CACHE / "tensorflow/bin/python"
    if not python.exists():
        pytest.skip("no TensorFlow: make fixtures")
    files = []
    for file in quantized_files:
        model = read_model(file.read_bytes())
        model.metadata = []  # keep_stablehlo_constant makes TensorFlow write other constants
        set_minimum_runtime(model)  # it fills an entry that is there
        files.append(file.with_suffix(".ours"))
        files[-1].write_bytes(write_model(model))
    subprocess.run(
        [python, "-c", ROUND_TRIP, *map(str, files)], check=True, capture_output=True, text=True
    )
    for file in files:
        theirs = read_model(file.with_suffix(".tf").read_bytes())
        ours = read_model(file.read_bytes())
        assert set_versions(ours) == (), file.name
        assert versions_of(ours) == versions_of(theirs), file.name
        assert set_minimum_runtime(ours) == written_runtime(theirs), file.name


@pytest.mark.slow
def test_a_file_with_its_versions_gives_the_same_values(quantized_files: list[Path]) -> None:
    for file in quantized_files:
        model = read_model(file.read_bytes())
        before = outputs_of(write_model(model))
        set_versions(model)
        set_minimum_runtime(model)
        np.testing.assert_array_equal(outputs_of(write_model(model)), before, file.name)


def outputs_of(content: bytes) -> np.ndarray:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    values = np.random.default_rng(1).standard_normal(entry["shape"]) * 30
    interpreter.set_tensor(entry["index"], values.astype(entry["dtype"]))
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
