"""Small .tflite files, built through the schema's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeship.exporters.tflite.flatbuffer import write_model


@dataclass(kw_only=True)
class Graph:
    """What `write_graph` writes: tensors in order, operators in order."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.buffers.append(schema.BufferT())

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "FLOAT32",
        *,
        values: np.ndarray | None = None,
        scale: float | None = None,
        zero_point: int = 0,
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(self.schema.TensorType, dtype)
        tensor.buffer = 0
        if values is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        if scale is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = [scale]
            tensor.quantization.zeroPoint = [zero_point]
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        output: int,
        options: str | None = None,
        *,
        version: int = 1,
        **settings: object,
    ) -> None:
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        operator = self.schema.OperatorT()
        operator.opcodeIndex = len(self.codes)
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
            for key, value in settings.items():
                setattr(operator.builtinOptions, key, value)
        self.codes.append(code)
        self.operators.append(operator)

    def content(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        signature: tuple[Mapping[str, int], Mapping[str, int]] | None = None,
    ) -> bytes:
        model = self.schema.ModelT()
        model.version, model.buffers, model.operatorCodes = 3, self.buffers, self.codes
        subgraph = self.schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = list(inputs), list(outputs)
        model.subgraphs = [subgraph]
        if signature is not None:
            definition = self.schema.SignatureDefT()
            definition.signatureKey = b"serving_default"
            definition.inputs, definition.outputs = (self._maps(part) for part in signature)
            model.signatureDefs = [definition]
        return write_model(model)

    def _maps(self, names: Mapping[str, int]) -> list[Any]:
        maps = []
        for name, index in names.items():
            item = self.schema.TensorMapT()
            item.name, item.tensorIndex = name.encode(), index
            maps.append(item)
        return maps


class Net(nn.Module):
    """A residual block, and each kind of tensor that memory planning likes to put over another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.again = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3, 4)

    def tensors(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every tensor between float32[1, 2, 5, 5] and the logits; rank 4 as N, H, W, C."""
        conv = self.conv(image)
        relu = conv.relu()
        added = relu + self.again(relu)
        pooled = added.mean((2, 3), keepdim=True)
        flat = pooled.flatten(1)
        found = {"conv/conv_2d": conv, "relu": relu, "again/conv_2d": self.again(relu)}
        found |= {"add": added, "pool": pooled, "flatten": flat, "logits": self.head(flat)}
        return {
            name: value.permute(0, 2, 3, 1) if value.ndim == 4 else value
            for name, value in found.items()
        }


def write_net(net: Net) -> bytes:
    """The net as operators of TFLite, named as the tensors of `Net.tensors`."""
    graph = Graph()
    image = graph.tensor("image", [1, 5, 5, 2])
    conv = graph.tensor("conv/conv_2d", [1, 5, 5, 3])
    relu = graph.tensor("relu", [1, 5, 5, 3])
    again = graph.tensor("again/conv_2d", [1, 5, 5, 3])
    added = graph.tensor("add", [1, 5, 5, 3])
    pooled = graph.tensor("pool", [1, 1, 1, 3])
    flat = graph.tensor("flatten", [1, 3])
    logits = graph.tensor("logits", [1, 4])

    def constant(name: str, values: torch.Tensor) -> int:
        array = values.detach().numpy()
        return graph.tensor(name, array.shape, values=array)

    def convolve(module: nn.Conv2d, source: int, target: int) -> None:
        weight = constant("weight", module.weight.permute(0, 2, 3, 1))
        bias = constant("bias", module.bias if module.bias is not None else torch.zeros(3))
        graph.operator(
            "CONV_2D",
            [source, weight, bias],
            target,
            "Conv2DOptions",
            strideH=1,
            strideW=1,
            dilationHFactor=1,
            dilationWFactor=1,
        )

    convolve(net.conv, image, conv)
    graph.operator("RELU", [conv], relu)
    convolve(net.again, relu, again)
    graph.operator("ADD", [relu, again], added, "AddOptions")
    pool = {"filterHeight": 5, "filterWidth": 5, "strideH": 5, "strideW": 5, "padding": 1}
    graph.operator("AVERAGE_POOL_2D", [added], pooled, "Pool2DOptions", **pool)
    shape = graph.tensor("shape", [2], "INT32", values=np.array([1, 3], np.int32))
    graph.operator("RESHAPE", [pooled, shape], flat, "ReshapeOptions", newShape=[1, 3])
    weight, bias = constant("weight", net.head.weight), constant("bias", net.head.bias)
    graph.operator("FULLY_CONNECTED", [flat, weight, bias], logits, "FullyConnectedOptions")
    return graph.content([image], [logits], ({"image": image}, {"logits": logits}))


@pytest.fixture(scope="session")
def new_graph() -> Callable[[], Graph]:
    return Graph


@pytest.fixture(scope="session")
def net() -> Net:
    return Net().eval()


@pytest.fixture(scope="session")
def net_file(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.tflite"
    path.write_bytes(write_net(net))
    return path


@pytest.fixture
def two_outputs(tmp_path: Path) -> Path:
    """`z` = -x is the first output and `a` = relu(x) the second, by the file and its signature."""
    graph = Graph()
    x, z, a = (graph.tensor(name, [1, 4]) for name in ("t0", "t1", "t2"))
    graph.operator("NEG", [x], z, "NegOptions")
    graph.operator("RELU", [x], a)
    path = tmp_path / "two.tflite"
    path.write_bytes(graph.content([x], [z, a], ({"x": x}, {"z": z, "a": a})))
    return path


@pytest.fixture
def too_new(tmp_path: Path) -> Path:
    """RELU in a version that no runtime has."""
    graph = Graph()
    x, y = graph.tensor("x", [1, 4]), graph.tensor("y", [1, 4])
    graph.operator("RELU", [x], y, version=99)
    path = tmp_path / "new.tflite"
    path.write_bytes(graph.content([x], [y]))
    return path
