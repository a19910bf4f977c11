from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgeship.errors import ExportFailed
from edgeship.runtimes.delegation import Delegation, examine_delegation, fallen_out

SHAPE = (1, 4, 4, 8)
CHAIN = ("ADD", "HARD_SWISH", "ADD", "ADD", "HARD_SWISH", "ADD")
OPTIONS = {
    "ADD": ("AddOptions", schema.AddOptionsT),
    "HARD_SWISH": ("HardSwishOptions", schema.HardSwishOptionsT),
    "BATCH_MATMUL": ("BatchMatMulOptions", schema.BatchMatMulOptionsT),
}


@dataclass(frozen=True)
class Tensor:
    is_integer: bool
    shape: tuple[int, ...] = SHAPE
    zero_point: int = 3


def tensor_table(name: str, tensor: Tensor) -> Any:  # noqa: ANN401 - the vendor has no types
    table = schema.TensorT()
    table.name, table.shape, table.buffer = name, list(tensor.shape), 0
    table.type = schema.TensorType.INT8 if tensor.is_integer else schema.TensorType.FLOAT32
    if tensor.is_integer:
        table.quantization = schema.QuantizationParametersT()
        table.quantization.scale = [0.05]
        table.quantization.zeroPoint = [tensor.zero_point]
    return table


def write_file(
    path: Path, tensors: Sequence[Tensor], operators: Sequence[tuple[str, list[int], int]]
) -> Path:
    """Each operator is its name, its inputs and its output; tensors without a writer are inputs."""
    graph, model = schema.SubGraphT(), schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    graph.tensors = [tensor_table(f"t{index}", item) for index, item in enumerate(tensors)]
    names = list(dict.fromkeys(name for name, _, _ in operators))
    model.operatorCodes = []
    for name in names:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = code.builtinCode, 1
        model.operatorCodes.append(code)
    graph.operators = []
    for name, inputs, output in operators:
        table, (kind, options) = schema.OperatorT(), OPTIONS[name]
        table.opcodeIndex, table.inputs, table.outputs = names.index(name), inputs, [output]
        table.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        table.builtinOptions = options()
        graph.operators.append(table)
    written = {output for _, _, output in operators}
    graph.inputs = [index for index in range(len(tensors)) if index not in written]
    graph.outputs = [operators[-1][2]]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def write_chain(path: Path, names: Sequence[str], *, is_integer: bool) -> Path:
    """Each operator on the output of the one before; ADD doubles it."""
    tensors = [Tensor(is_integer)] * (len(names) + 1)
    operators = [
        (name, [index] * (2 if name == "ADD" else 1), index + 1) for index, name in enumerate(names)
    ]
    return write_file(path, tensors, operators)


def write_product(path: Path, *, right_zero_point: int) -> Path:
    left, out = Tensor(True, (1, 4, 8)), Tensor(True, (1, 4, 4))
    right = Tensor(True, (1, 8, 4), right_zero_point)
    return write_file(path, [left, right, out], [("BATCH_MATMUL", [0, 1], 2)])


def has_delegate(file: Path) -> bool:
    """Whether a file of one operator has a delegate's node beside it."""
    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    return len(interpreter._get_ops_details()) == 2


def test_an_integer_hard_swish_cuts_the_graph(tmp_path: Path) -> None:
    file = write_chain(tmp_path / "int8.tflite", CHAIN, is_integer=True)
    places = tuple(place for place, name in enumerate(CHAIN) if name == "HARD_SWISH")
    expected = Delegation(partitions=3, outside={"HARD_SWISH": 2}, places=places)
    assert examine_delegation(file) == expected


def test_a_float_hard_swish_does_not(tmp_path: Path) -> None:
    file = write_chain(tmp_path / "fp32.tflite", CHAIN, is_integer=False)
    assert examine_delegation(file) == Delegation(partitions=1, outside={}, places=())


@pytest.mark.parametrize("is_integer", [True, False], ids=["int8", "fp32"])
def test_what_is_outside_is_outside_in_a_file_of_its_own(tmp_path: Path, is_integer: bool) -> None:
    file = write_chain(tmp_path / "chain.tflite", CHAIN, is_integer=is_integer)
    alone = {
        name: has_delegate(write_chain(tmp_path / "one.tflite", [name], is_integer=is_integer))
        for name in CHAIN
    }
    expected = {name: CHAIN.count(name) for name in CHAIN if not alone[name]}
    assert examine_delegation(file).outside == expected


@pytest.mark.parametrize(("zero_point", "outside"), [(0, {}), (3, {"BATCH_MATMUL": 1})])
def test_a_product_needs_a_right_side_whose_zero_point_is_0(
    tmp_path: Path, zero_point: int, outside: dict[str, int]
) -> None:
    file = write_product(tmp_path / "product.tflite", right_zero_point=zero_point)
    found = examine_delegation(file)
    assert found.outside == outside
    assert found.partitions == 1 - len(outside)


def test_only_operators_that_the_float_file_delegates_have_fallen_out() -> None:
    outside = {"STRIDED_SLICE": 4, "AVERAGE_POOL_2D": 1, "PAD": 3}
    integer = Delegation(partitions=4, outside=outside, places=tuple(range(8)))
    outside = {"STRIDED_SLICE": 4, "PAD": 1, "GATHER": 2}
    floating = Delegation(partitions=3, outside=outside, places=tuple(range(7)))
    assert fallen_out(integer, floating) == {"AVERAGE_POOL_2D": 1, "PAD": 2}


@pytest.mark.parametrize("content", [b"", b"hello world", None], ids=["empty", "text", "missing"])
def test_a_file_that_litert_does_not_load_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "garbage.tflite"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ExportFailed, match=r"garbage\.tflite: LiteRT .* cannot run"):
        examine_delegation(file)


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tensors = [Tensor(False, (1, 4, 8)), Tensor(False, (1, 7, 4)), Tensor(False, (1, 4, 4))]
    file = write_file(tmp_path / "odd.tflite", tensors, [("BATCH_MATMUL", [0, 1], 2)])
    with pytest.raises(ExportFailed, match=r"odd\.tflite: LiteRT .* cannot run"):
        examine_delegation(file)
