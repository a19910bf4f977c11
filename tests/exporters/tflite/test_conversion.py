from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeship.contract import Contract, TensorSpec
from edgeship.errors import ExportFailed
from edgeship.exporters.tflite.contracts import file_contract
from edgeship.exporters.tflite.conversion import convert
from edgeship.exporters.tflite.flatbuffer import (
    operator_name,
    operators,
    tensor_name,
    write_model,
)
from edgeship.exporters.tflite.naming import modules_of, with_names
from edgeship.runtimes.adapter import FloatSession
from edgeship.runtimes.litert import LiteRtRuntime
from edgeship.source.model import Model, example_inputs, output_tensors
from edgeship.source.program import load_program
from edgeship.vocabulary import Layout

IMAGE = TensorSpec(name="image", shape=(1, 3, 8, 8), layout=Layout.NCHW)


class Block(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)) + x)  # type: ignore[no-any-return]  # torch's


class Net(nn.Module):
    """Two lists of equal blocks, which only whole paths tell apart; a map and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.down = nn.ModuleList([Block(4, 4), Block(4, 2)])
        self.up = nn.ModuleList([Block(4, 1), Block(4, 4)])
        self.head = nn.Linear(4, 3)

    def forward(self, image: Tensor, extra: Tensor) -> dict[str, Tensor]:
        x = self.stem(image)
        for block in (*self.down, *self.up):
            x = block(x)
        big = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        return {"map": big, "logits": self.head(x.mean((2, 3), keepdim=True).flatten(1)) * extra}


class Expression(nn.Module):
    """A module of one line, in another one."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.function = function

    def forward(self, *tensors: Tensor) -> object:
        return self.function(*tensors)


class Outer(nn.Module):
    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.neck = Expression(function)

    def forward(self, *tensors: Tensor) -> object:
        return self.neck(*tensors)


def model_of(module: nn.Module, inputs: Sequence[TensorSpec] = (IMAGE,)) -> Model:
    with torch.no_grad():
        results = output_tensors(module(*example_inputs(inputs)))
    outputs = tuple(
        TensorSpec(name=key or "logits", shape=tuple(value.shape), dtype=str(value.numpy().dtype))
        for key, value in results.items()
    )
    return Model(module=module, contract=Contract(inputs=tuple(inputs), outputs=outputs))


def net() -> Net:
    torch.manual_seed(0)
    made = Net()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean = torch.randn(module.num_features)
    return made.eval().requires_grad_(requires_grad=False)


EXTRA = TensorSpec(name="extra", shape=(1, 3))


@dataclass(frozen=True)
class Converted:
    model: Model
    tables: Any


@pytest.fixture(scope="module")
def converted() -> Converted:
    model = model_of(net(), (IMAGE, EXTRA))
    return Converted(model, with_names(convert(model), model.contract))


def difference(model: Model, tables: object, directory: Path, seed: int = 0) -> float:
    """Largest, relative to the output's largest magnitude."""
    file = directory / "model.tflite"
    file.write_bytes(write_model(tables))
    generator = np.random.default_rng(seed)
    inputs = {
        spec.name: generator.standard_normal(spec.shape).astype(np.float32)
        if spec.dtype == "float32"
        else generator.integers(0, 2, spec.shape)
        for spec in model.contract.inputs
    }
    contract = file_contract(model.contract, tables)
    found = FloatSession(LiteRtRuntime().open(file), model.contract.inputs, contract).run(inputs)
    expected = model.run(inputs)
    assert found.keys() == expected.keys()
    return max(
        float(np.abs(found[name] - values).max() / np.abs(values).max())
        for name, values in expected.items()
    )


def test_the_file_computes_what_the_module_does(converted: Converted, tmp_path: Path) -> None:
    # BatchNorm is folded and sums run in another order: a few units of float32's last place
    assert difference(converted.model, converted.tables, tmp_path) < 2e-6


def test_images_need_no_transpose(converted: Converted) -> None:
    names = [
        operator_name(converted.tables, operator) for _, operator in operators(converted.tables)
    ]
    assert "TRANSPOSE" not in names
    assert names.count("DEPTHWISE_CONV_2D") == 2
    assert file_contract(converted.model.contract, converted.tables) == Contract(
        inputs=(TensorSpec(name="image", shape=(1, 8, 8, 3), layout=Layout.NHWC), EXTRA),
        outputs=(
            TensorSpec(name="map", shape=(1, 8, 8, 4), layout=Layout.NHWC),
            TensorSpec(name="logits", shape=(1, 3)),
        ),
    )


def test_equal_blocks_in_two_lists_keep_their_paths(converted: Converted) -> None:
    found = modules_of(converted.tables)
    paths = {name for name, _ in net().named_modules()}
    assert set(found.values()) <= paths
    for block in ("down.0", "down.1", "up.0", "up.1"):
        assert found[f"{block}/add"] == block
        assert f"{block}.conv" in found.values()
    assert found["stem/conv_2d"] == "stem"
    assert found["head/fully_connected"] == "head"
    assert (found["logits"], found["map"]) == ("", "")


def test_weights_are_named_by_their_layer(converted: Converted) -> None:
    names = {tensor_name(tensor) for tensor in converted.tables.subgraphs[0].tensors}
    assert {"stem/weight", "stem/bias", "up.0.conv/weight", "head/weight"} <= names


def test_nothing_of_this_machine_or_the_converter_ships(converted: Converted) -> None:
    content = write_model(converted.tables)
    for text in (
        __file__,
        ".py",
        "torch",
        "MLIR",
        "keep_stablehlo",
        "min_runtime",
        "serving_default_",
    ):
        assert text.encode() not in content
    assert converted.tables.description == b"edgeship"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.erfinv, "litert-torch cannot convert aten.erfinv in module 'neck'"),
        (lambda a: a if a.sum() > 0 else -a, "torch.export cannot trace the module"),
    ],
)
def test_what_cannot_be_converted_is_one_clear_line(
    function: Callable[[Tensor], object], expected: str
) -> None:
    require_refusal(function, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a: a.sort(1)[0], "found aten.sort in module 'neck'"),
        (lambda a: a, "output 'logits': the output is not computed on its own.*as it came in"),
        (lambda a: a[a > 0], "litert-torch cannot convert aten.index in module 'neck'"),
        (lambda a: (a + 1, torch.ones(1, 2)), "output 'output_1': .*found a constant"),
        (lambda a: (a + 1,) * 2, "output 'output_0': .*the same tensor as another output"),
        (lambda a: a.double() + 1, "litert-torch cannot convert the module.*f64"),
    ],
)
def test_what_else_cannot_be_converted(function: Callable[[Tensor], object], expected: str) -> None:
    require_refusal(function, expected)


def require_refusal(function: Callable[[Tensor], object], expected: str) -> None:
    module = Outer(function).eval()
    try:
        model = model_of(module)
    except (TypeError, RuntimeError):  # a data-dependent shape
        model = Model(
            module=module,
            contract=Contract(inputs=(IMAGE,), outputs=(TensorSpec(name="logits", shape=(1,)),)),
        )
    with pytest.raises(ExportFailed, match=expected) as raised:
        convert(model)
    assert "\n" not in str(raised.value)


def test_converting_is_silent_and_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger("torch").level
    module = nn.Linear(4, 4).eval().requires_grad_(requires_grad=False)
    module.bias[1] = -math.inf
    convert(model_of(module, (TensorSpec(name="x", shape=(1, 4)),)))
    assert module.bias[1] == -math.inf  # the vendor clamps it in place
    assert before == (logging.getLogger().handlers, logging.getLogger("torch").level)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_token_ids_are_int32_in_the_file(tmp_path: Path) -> None:
    ids = TensorSpec(name="ids", shape=(1, 6), dtype="int64")
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2)).eval()
    model = model_of(module, (ids,))
    tables = with_names(convert(model), model.contract)
    assert file_contract(model.contract, tables).inputs[0].dtype == "int32"
    assert difference(model, tables, tmp_path) < 2e-6


@pytest.mark.slow
def test_a_program_keeps_the_modules_of_its_export(tmp_path: Path, converted: Converted) -> None:
    file = tmp_path / "net.pt2"
    inputs = (IMAGE, EXTRA)
    torch.export.save(torch.export.export(net(), example_inputs(inputs)), file)
    model = model_of(load_program(file, inputs), inputs)
    tables = with_names(convert(model), model.contract)
    assert modules_of(tables) == modules_of(converted.tables)
    assert difference(model, tables, tmp_path) < 2e-6


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.rnn = kind(4, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.rnn(x)[0][:, -1])
        return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Recurrent(nn.GRU), (1, 5, 4)),
        (Recurrent(nn.LSTM), (1, 5, 4)),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.GELU()), (1, 3, 9)),
        (nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3, dilation=2)), IMAGE.shape),
        (nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(3, 6, 3, groups=3)), IMAGE.shape),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.PReLU(4)), IMAGE.shape),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Hardswish()), IMAGE.shape),
        (nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Softmax(1)), IMAGE.shape),
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), IMAGE.shape),
        (Outer(lambda x: (x.half() * 2).float()), IMAGE.shape),
    ],
)
def test_common_layers_convert(module: nn.Module, shape: tuple[int, ...], tmp_path: Path) -> None:
    layout = Layout.NCHW if len(shape) == 4 else None
    module = module.eval().requires_grad_(requires_grad=False)
    model = model_of(module, (TensorSpec(name="x", shape=shape, layout=layout),))
    tables = with_names(convert(model), model.contract)
    assert set(modules_of(tables).values()) <= {name for name, _ in module.named_modules()}
    # float16 products carry 11 bits; float32 ones differ in the order of their sums
    assert difference(model, tables, tmp_path) < 1e-5
