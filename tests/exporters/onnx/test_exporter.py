from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgeship.calibration.observe import observe
from edgeship.calibration.ranges import Ranges, solve_ranges
from edgeship.contract import Contract, TensorSpec
from edgeship.digests import file_sha256
from edgeship.errors import ConfigurationError, ExportFailed
from edgeship.exporters.onnx.exporter import OnnxExporter
from edgeship.exporters.onnx.rules import kept_nodes
from edgeship.exporters.protocol import Lowered, Recipe, Request, Source
from edgeship.project import (
    Factory,
    FactorySource,
    FileSource,
    InputSection,
    ModelSection,
    RangePolicy,
    Rule,
)
from edgeship.runtimes.ort import OrtRuntime
from edgeship.source.model import Model, output_tensors
from edgeship.targets import ActivationType, Target, load_target
from edgeship.vocabulary import Format, Role

SHAPE = (1, 3, 8, 8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x)))) + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.fc(self.layers(torch.relu(self.stem(image))).mean((2, 3)))
        return out


class Expression(nn.Module):
    """A module of one line, and a weight that nothing reads."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> object:
        return self.function(image)


def model_of(module: nn.Module) -> Model:
    module = module.eval().requires_grad_(requires_grad=False)
    tensors = output_tensors(module(torch.zeros(SHAPE)))
    outputs = [TensorSpec(name=key or "logits", shape=tuple(t.shape)) for key, t in tensors.items()]
    contract = Contract(inputs=(TensorSpec(name="image", shape=SHAPE),), outputs=tuple(outputs))
    return Model(module=module, contract=contract)


def samples(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    return [{"image": generator.standard_normal(SHAPE).astype(np.float32)} for _ in range(count)]


@dataclass(frozen=True, kw_only=True)
class Net8:
    """The net, lowered and observed."""

    model: Model
    lowered: Lowered
    ranges: Ranges


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Net8:
    torch.manual_seed(0)
    model = model_of(Net())
    source = Source(load=lambda: model, read_probes=lambda: samples(3))
    lowered = OnnxExporter().lower(source, tmp_path_factory.mktemp("lowered"))
    with OrtRuntime().observe(lowered.file, lowered.observed) as session:
        named = ((str(index), inputs) for index, inputs in enumerate(samples(16)))
        statistics = observe(named, session.run)
    return Net8(model=model, lowered=lowered, ranges=solve_ranges(statistics, RangePolicy()))


@pytest.fixture(scope="session")
def target() -> Target:
    return target_with(load_target("raspberry-pi-4"))


def target_with(
    target: Target, *, activation: ActivationType = ActivationType.UINT8, reduce_range: bool = False
) -> Target:
    facts = replace(
        target.formats[Format.ONNX], activation_type=activation, reduce_range=reduce_range
    )
    return replace(target, formats={**target.formats, Format.ONNX: facts})


def int8(*rules: tuple[str, str]) -> Recipe:
    return Recipe(
        precision="int8",
        rules=tuple(Rule(match=match, precision=precision) for match, precision in rules),
    )


def plain_session(file: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Without the runtime's integer kernels, whose products saturate on some CPUs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda inputs: np.asarray(session.run(None, inputs)[0])


def request_for(target: Target, recipe: Recipe, *, kind: str = "factory") -> Request:
    source: FactorySource | FileSource
    if kind == "factory":
        source = FactorySource(
            factory=Factory(file=Path("/p/net.py"), attribute="build"), weights=Path("/p/w.pt")
        )
    else:
        source = FileSource(kind=kind, path=Path("/p/model"))
    image = InputSection(name="image", shape=SHAPE, layout=None, preprocess=None)
    section = ModelSection(name="net", source=source, task=None, inputs=(image,), labels=None)
    return Request(model=section, target=target, recipe=recipe)


@pytest.mark.parametrize(
    "recipe", [Recipe(precision="fp32"), int8(), int8(("layers.*", "fp32"), ("layers.1.*", "int8"))]
)
def test_what_can_be_made_has_no_problems(target: Target, recipe: Recipe) -> None:
    assert list(OnnxExporter().problems(request_for(target, recipe))) == []


@pytest.mark.parametrize("kind", ["program", "onnx"])
def test_a_program_and_an_onnx_file_become_onnx(target: Target, kind: str) -> None:
    assert list(OnnxExporter().problems(request_for(target, int8(), kind=kind))) == []


def test_every_precision_that_cannot_be_made_is_a_problem(target: Target) -> None:
    recipe = Recipe(precision="q4_0", rules=(Rule(match="fc", precision="fp8"),))
    problems = list(OnnxExporter().problems(request_for(target, recipe)))
    assert [problem.what.split("'")[1] for problem in problems] == ["fp8", "q4_0"]
    assert {problem.expected for problem in problems} == {"fp32, fp16, int8, dynamic"}
    assert {problem.where for problem in problems} == {"edgeship.toml: targets.raspberry-pi-4.onnx"}


def test_a_rule_of_another_precision_is_a_problem(target: Target) -> None:
    recipe = int8(("fc", "fp16"), ("stem", "fp32"))
    (problem,) = OnnxExporter().problems(request_for(target, recipe))
    assert problem.where == "edgeship.toml: targets.raspberry-pi-4.onnx.rules"
    assert problem.found == "fc -> fp16"


def test_all_problems_come_together(target: Target) -> None:
    rules = (Rule(match="fc", precision="int8"), Rule(match="fc", precision="q4_0"))
    recipe = Recipe(precision="fp16", rules=rules)
    assert len(list(OnnxExporter().problems(request_for(target, recipe, kind="hf")))) == 3


@pytest.mark.parametrize("precision", ["fp16", "dynamic"])
def test_a_rule_keeps_a_layer_in_the_other_precisions_too(
    net: Net8, target: Target, tmp_path: Path, precision: str
) -> None:
    rules = (Rule(match="fc", precision="fp32"), Rule(match="layers.0.*", precision="fp32"))
    for name, kept in (("all", ()), ("some", rules)):
        (tmp_path / name).mkdir()
        recipe = Recipe(precision=precision, rules=kept)
        if precision == "dynamic" and kept:
            with pytest.raises(ExportFailed, match="that no rule keeps in fp32"):
                OnnxExporter().emit(net.lowered, None, recipe, target, tmp_path / name)
            return
        payload = OnnxExporter().emit(net.lowered, net.ranges, recipe, target, tmp_path / name)
        assert payload.contract == net.model.contract
    files = [onnx.load(tmp_path / name / "model.onnx") for name in ("all", "some")]
    stored = [{item.name for item in file.graph.initializer} for file in files]
    for weight in ("fc.weight", "layers.0.conv1.weight"):
        assert f"{weight}_float16" in stored[0]
        assert weight in stored[1]


def test_a_float16_file_says_what_it_is(net: Net8, target: Target, tmp_path: Path) -> None:
    recipe = Recipe(precision="fp16")
    payload = OnnxExporter().emit(net.lowered, net.ranges, recipe, target, tmp_path)
    assert "computed in float32: 1 ReduceMean" in payload.notes
    assert any("overflow was judged from representative data" in note for note in payload.notes)
    seen = net.ranges.by_name["logits"]
    assert payload.output_steps == {"logits": max(-seen.low, seen.high) / 256}
    run = OrtRuntime().open(tmp_path / "model.onnx").run
    for inputs in samples(4):
        expected = net.model.run(inputs)["logits"]
        # eight roundings in a row to float16, 2**-11 each
        assert np.abs(run(inputs)["logits"] - expected).max() <= 2**-8 * np.abs(expected).max()


def test_lowering_gives_a_file_that_is_bound_to_its_digest(net: Net8) -> None:
    lowered = net.lowered
    assert lowered.sha256 == file_sha256(lowered.file)
    assert lowered.runtime == "onnxruntime"
    assert lowered.contract == net.model.contract
    assert lowered.observed[0] == "image"
    assert "logits" in lowered.observed
    assert set(lowered.observed) == set(net.ranges.by_name)


def kept_weights(proto: onnx.ModelProto, *rules: tuple[str, str]) -> set[str]:
    """Layers that the rules keep in float, by their weights' names."""
    kept = set(kept_nodes(proto, int8(*rules)))
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    return {node.input[1].removesuffix(".weight") for node in layers if node.name in kept}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], []),
        ([("fc", "fp32")], ["fc"]),
        ([("layers.0.*", "fp32")], ["layers.0.conv1", "layers.0.conv2"]),
        ([("layers.0", "fp32")], ["layers.0.conv1", "layers.0.conv2"]),
        ([("layers", "fp32"), ("layers.1", "int8")], ["layers.0.conv1", "layers.0.conv2"]),
        ([("*.conv2", "fp32")], ["layers.0.conv2", "layers.1.conv2"]),
        ([("layers.?.conv1", "fp32")], ["layers.0.conv1", "layers.1.conv1"]),
        ([("layers.*", "fp32"), ("layers.1.*", "int8")], ["layers.0.conv1", "layers.0.conv2"]),
        ([("layers.0.*", "int8"), ("layers.0.conv1", "fp32")], ["layers.0.conv1"]),
        ([("fc", "fp32"), ("*", "int8")], []),
        (
            [("*", "fp32"), ("fc", "int8")],
            ["layers.0.conv1", "layers.0.conv2", "layers.1.conv1", "layers.1.conv2", "stem"],
        ),
    ],
)
def test_of_two_rules_the_later_one_wins(
    net: Net8, rules: Sequence[tuple[str, str]], expected: Sequence[str]
) -> None:
    assert sorted(kept_weights(onnx.load(net.lowered.file), *rules)) == list(expected)


@pytest.mark.parametrize(("match", "close"), [("layers.0.conv3", "layers.0.conv"), ("fcc", "fc")])
def test_a_rule_that_matches_nothing_names_the_closest_module(
    net: Net8, target: Target, tmp_path: Path, match: str, close: str
) -> None:
    recipe = int8((match, "fp32"))
    with pytest.raises(ConfigurationError) as caught:
        OnnxExporter().emit(net.lowered, net.ranges, recipe, target, tmp_path)
    (problem,) = caught.value.problems
    assert repr(match) in problem.where
    assert close in str(problem.expected)
    assert list(tmp_path.iterdir()) == []


def test_a_float_file_computes_what_the_graph_computes(
    net: Net8, target: Target, tmp_path: Path
) -> None:
    payload = OnnxExporter().emit(net.lowered, None, Recipe(precision="fp32"), target, tmp_path)
    graph, emitted = OrtRuntime().open(net.lowered.file), OrtRuntime().open(tmp_path / "model.onnx")
    for inputs in samples(4, seed=7):
        assert np.array_equal(graph.run(inputs)["logits"], emitted.run(inputs)["logits"])
    assert payload.files == {"model.onnx": Role.MODEL}
    assert payload.contract == net.lowered.contract
    assert payload.output_steps == {}
    assert payload.notes == ()


@pytest.mark.parametrize("activation", ActivationType)
@pytest.mark.parametrize("reduce_range", [False, True])
def test_an_int8_file_is_close_to_the_module(
    net: Net8, target: Target, tmp_path: Path, activation: ActivationType, reduce_range: bool
) -> None:
    facts = target_with(target, activation=activation, reduce_range=reduce_range)
    payload = OnnxExporter().emit(net.lowered, net.ranges, int8(), facts, tmp_path)
    run = plain_session(tmp_path / "model.onnx")
    errors = [np.abs(net.model.run(inputs)["logits"] - run(inputs)).max() for inputs in samples(4)]
    # six layers of 8-bit rounding, on ranges of 255 steps
    assert max(errors) <= 12 * payload.output_steps["logits"]
    specs = (*payload.contract.inputs, *payload.contract.outputs)
    assert {spec.dtype for spec in specs} == {"float32"}
    has_note = any("7 bits" in note for note in payload.notes)
    assert has_note == reduce_range


def test_what_stays_in_float_is_said(net: Net8, target: Target, tmp_path: Path) -> None:
    recipe = int8(("layers.0.conv1", "fp32"))
    payload = OnnxExporter().emit(net.lowered, net.ranges, recipe, target, tmp_path)
    assert "computed in float32: 1 Conv, 1 ReduceMean, 1 Relu" in payload.notes
    initializers = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer
    }
    assert initializers["layers.0.conv1.weight"].dtype == np.float32
    assert initializers["layers.0.conv2.weight_quantized"].dtype == np.int8
    assert "layers.0.conv2.weight" not in initializers


def test_dead_tensors_are_said(net: Net8, target: Target, tmp_path: Path) -> None:
    ranges = replace(net.ranges, dead=("relu_1", "relu"))
    payload = OnnxExporter().emit(net.lowered, ranges, int8(), target, tmp_path)
    assert "zero on all representative data: relu, relu_1" in payload.notes


def test_the_same_request_gives_the_same_bytes(net: Net8, target: Target, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        OnnxExporter().emit(net.lowered, net.ranges, int8(), target, tmp_path / name)
    files = [tmp_path / name / "model.onnx" for name in ("a", "b")]
    assert file_sha256(files[0]) == file_sha256(files[1])


def test_an_int8_file_says_what_a_board_must_have(
    net: Net8, target: Target, tmp_path: Path
) -> None:
    requires = OnnxExporter().emit(net.lowered, net.ranges, int8(), target, tmp_path).requires
    assert [need.runtime for need in requires.any_of] == ["onnxruntime"]
    assert requires.memory_bytes


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.rand(SHAPE),
        lambda x: nn.functional.dropout(x, 0.5, training=True),
    ],
    ids=["rand", "dropout"],
)
def test_a_module_with_randomness_is_refused(
    tmp_path: Path, function: Callable[[Tensor], Tensor]
) -> None:
    source = Source(load=lambda: model_of(Expression(function)), read_probes=lambda: samples(1))
    with pytest.raises(ExportFailed, match="randomness") as caught:
        OnnxExporter().lower(source, tmp_path)
    assert "output 'logits', sample 0" in str(caught.value)


def test_outputs_of_every_type_are_compared(tmp_path: Path) -> None:
    module = Expression(lambda x: {"is_up": x > 0, "best": x.argmax(1), "x2": x * 2})
    lowered = OnnxExporter().lower(
        Source(load=lambda: model_of(module), read_probes=lambda: samples(2)), tmp_path
    )
    found = OrtRuntime().open(lowered.file).run(samples(1)[0])
    assert {name: str(values.dtype) for name, values in found.items()} == {
        "is_up": "bool",
        "best": "int64",
        "x2": "float32",
    }


def test_an_output_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    module = Expression(lambda x: torch.log(x - 100))
    with pytest.raises(ExportFailed, match="nan"):
        OnnxExporter().lower(
            Source(load=lambda: model_of(module), read_probes=lambda: samples(1)), tmp_path
        )
