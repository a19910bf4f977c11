# ruff: noqa: ANN401, ARG005 - vendor modules have no types; each seed takes the same two
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeship.exporters.tensorrt.kit.api_build import build_engine
from edgeship.exporters.tensorrt.kit.stopped import Stopped

DATA = Path(__file__).parent / "data"
DUMPS = sorted(path.stem.removeprefix("tensorrt_") for path in DATA.glob("tensorrt_*.json"))
Flags = dict[str, Any]
FP16: Flags = {"fp16": True, "int8": False, "strongly_typed": False, "float32_nodes": {}}
INT8 = FP16 | {"int8": True}
TYPED = FP16 | {"fp16": False, "strongly_typed": True}
KEPT = FP16 | {"float32_nodes": {"n_big": ["big"], "n_gemm": ["sum"], "n_top": ["values", None]}}

Make = Callable[..., Any]


def major(dump: str) -> int:
    return int(dump.split(".")[0])


@pytest.fixture
def make(fake_tensorrt: SimpleNamespace) -> Make:
    def made(dump: str, answers: dict[str, Any] | None = None, version: str | None = None) -> Any:
        snapshot = json.loads((DATA / f"tensorrt_{dump}.json").read_text())
        return fake_tensorrt.make_module(snapshot, answers, version=version)

    return made


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[[Flags], dict[str, Any]]:
    (tmp_path / "graph.onnx").write_bytes(b"a graph")

    def made(flags: Flags) -> dict[str, Any]:
        return {
            "onnx": str(tmp_path / "graph.onnx"),
            "engine": str(tmp_path / "graph.plan"),
            "timing_cache": str(tmp_path / "timing.cache"),
            "workspace_mib": 512,
            "flags": flags,
        }

    return made


def test_there_are_twelve_dumps() -> None:
    assert len(DUMPS) == 12


@pytest.mark.parametrize("dump", DUMPS)
@pytest.mark.parametrize("flags", [FP16, INT8, TYPED], ids=["fp16", "int8", "typed"])
def test_every_version_takes_the_calls_or_the_kit_refuses_first(
    make: Make, request_for: Make, dump: str, flags: Flags
) -> None:
    trt = make(dump)
    request = request_for(flags)
    is_weak_only, is_typed_only = major(dump) == 8, major(dump) == 11
    if (is_weak_only and flags is TYPED) or (is_typed_only and flags is not TYPED):
        with pytest.raises(Stopped) as caught:
            build_engine(trt, **request)
        assert caught.value.outcome == "incompatible"
        assert trt.calls == []
        return
    build_engine(trt, **request)
    assert Path(request["engine"]).read_bytes() == b"an engine that no one built"
    assert Path(request["timing_cache"]).exists()
    called = [name for name, _ in trt.calls]
    set_flags = [arguments[0].name for name, arguments in trt.calls if name.endswith("set_flag")]
    assert set_flags == [name.upper() for name in ("fp16", "int8") if flags[name]]
    assert called.count("Builder.build_serialized_network") == 1
    assert ("Builder.create_network", (network_flags(dump, flags),)) in trt.calls
    if major(dump) == 8:
        assert ("IBuilderConfig.max_workspace_size", (512 << 20,)) in trt.calls
    else:
        limits = [one for name, one in trt.calls if name.endswith("set_memory_pool_limit")]
        assert [(pool.name, size) for pool, size in limits] == [("WORKSPACE", 512 << 20)]


def network_flags(dump: str, flags: Flags) -> int:
    """EXPLICIT_BATCH is bit 0 of 8.x, STRONGLY_TYPED bit 1 of 10.x; 11 has one kind of network."""
    if major(dump) == 8:
        return 1
    return 2 if major(dump) == 10 and flags is TYPED else 0


@pytest.mark.parametrize("version", ["8.0.1", "8.2.1", "8.4.1", "8.5.2"])
def test_what_older_versions_are_asked_for_is_left_in_8_6(
    make: Make, request_for: Make, version: str
) -> None:
    request = request_for(INT8)
    build_engine(make("8.6.1", version=version), **request)
    assert Path(request["engine"]).exists()


class Layers:
    """Of a network as TensorRT's parser leaves it; by name, their outputs and types."""

    def __init__(self, outputs: dict[str, dict[str, str]]) -> None:
        self._outputs = outputs
        self.told: list[tuple[str, str, str]] = []
        self.module: Any = None

    def answers(self) -> dict[str, Any]:
        """For the fake."""

        def result(layer: Any, place: int) -> Any:
            tensor = layer.module.ITensor.__new__(layer.module.ITensor)
            name, kind = list(self._outputs[layer.tag].items())[place]
            vars(tensor).update(tag=name, kind=getattr(layer.module.DataType, kind))
            return tensor

        return {
            "INetworkDefinition.num_layers": len(self._outputs),
            "INetworkDefinition.get_layer": lambda network, index: self._layer(index),
            "ILayer.name": lambda layer: layer.tag,
            "ILayer.num_outputs": lambda layer: len(self._outputs[layer.tag]),
            "ILayer.get_output": result,
            "ILayer.precision=": lambda layer, kind: self.told.append((layer.tag, "", kind.name)),
            "ILayer.set_output_type": lambda layer, place, kind: self.told.append(
                (layer.tag, list(self._outputs[layer.tag])[place], kind.name)
            ),
            "ITensor.name": lambda tensor: tensor.tag,
            "ITensor.dtype": lambda tensor: tensor.kind,
        }

    def _layer(self, index: int) -> Any:
        module = self.module
        layer = module.ILayer.__new__(module.ILayer)
        vars(layer).update(tag=list(self._outputs)[index], module=module)
        return layer


LAYERS = {
    "n_conv": {"conv": "FLOAT"},
    "n_big": {"big": "FLOAT"},
    "n_gemm": {"n_gemm_product": "FLOAT"},
    "(Unnamed Layer* 3) [ElementWise]": {"sum": "FLOAT"},
    "n_top": {"values": "FLOAT", "indices": "INT32"},
}
"""A Gemm is two layers, of which the parser names one."""


@pytest.mark.parametrize("dump", [one for one in DUMPS if major(one) < 11])
def test_layers_that_stay_in_fp32_are_set_with_what_they_give(
    make: Make, request_for: Make, dump: str
) -> None:
    layers = Layers(LAYERS)
    layers.module = trt = make(dump, layers.answers())
    build_engine(trt, **request_for(KEPT))
    rest = "(Unnamed Layer* 3) [ElementWise]"
    assert layers.told == [
        ("n_big", "", "FLOAT"),
        ("n_big", "big", "FLOAT"),
        ("n_gemm", "", "FLOAT"),
        ("n_gemm", "n_gemm_product", "FLOAT"),
        (rest, "", "FLOAT"),
        (rest, "sum", "FLOAT"),
        ("n_top", "", "FLOAT"),
        ("n_top", "values", "FLOAT"),
    ]
    set_flags = [arguments[0].name for name, arguments in trt.calls if name.endswith("set_flag")]
    assert set_flags == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]


def test_where_nothing_could_be_kept_no_engine_is_built(make: Make, request_for: Make) -> None:
    layers = Layers({"n_other": {"other": "FLOAT"}})
    layers.module = trt = make("10.3.0_cu12", layers.answers())
    request = request_for(KEPT)
    with pytest.raises(Stopped, match="TensorRT names none of them, like n_big") as caught:
        build_engine(trt, **request)
    assert caught.value.outcome == "refused"
    layers.module = trt = make("8.6.1", layers.answers(), version="8.0.1")
    del trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS  # it came with 8.2
    with pytest.raises(Stopped, match=r"TensorRT 8\.0\.1 cannot be told so") as caught:
        build_engine(trt, **request)
    assert caught.value.outcome == "incompatible"
    assert not Path(request["engine"]).exists()


SEEDS: dict[str, tuple[str, Callable[[Any, Any], object]]] = {
    "FP16 flag on 11": (
        "11.0.0.114_cu12",
        lambda trt, it: it.config.set_flag(trt.BuilderFlag.FP16),
    ),
    "EXPLICIT_BATCH on 11": (
        "11.4.0.106_cu12",
        lambda trt, it: trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH,
    ),
    "config left out": (
        "10.3.0_cu12",
        lambda trt, it: it.builder.build_serialized_network(it.network),
    ),
    "int for an enum": ("10.3.0_cu12", lambda trt, it: it.config.set_flag(0)),
    "str for a size": (
        "10.3.0_cu12",
        lambda trt, it: it.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, "1G"),
    ),
    "str for a flag": ("8.6.1", lambda trt, it: it.config.set_flag("INT8")),
    "unknown method": ("8.6.1", lambda trt, it: it.builder.build_cuda_engine(it.network)),
    "removed property": ("11.2.1.2_cu12", lambda trt, it: it.builder.platform_has_fast_int8),
    "removed precision of a layer": (
        "11.0.0.114_cu12",
        lambda trt, it: setattr(it.network.get_layer(0), "precision", trt.DataType.FLOAT),
    ),
    "str for a type": (
        "10.3.0_cu12",
        lambda trt, it: it.network.get_layer(0).set_output_type(0, "float32"),
    ),
    "removed workspace": (
        "10.0.1_cu12",
        lambda trt, it: setattr(it.config, "max_workspace_size", 1),
    ),
    "attribute that is none": ("8.6.1", lambda trt, it: setattr(it.config, "workspace", 1)),
    "attribute that is read-only": ("8.6.1", lambda trt, it: setattr(it.builder, "logger", None)),
    "unknown keyword": ("8.6.1", lambda trt, it: it.builder.create_network(flag=1)),
    "too many arguments": ("8.6.1", lambda trt, it: it.builder.reset(1)),
    "a class that nobody constructs": ("8.6.1", lambda trt, it: trt.IBuilderConfig()),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fake_takes_no_mistake(make: Make, seed: str) -> None:
    dump, mistake = SEEDS[seed]
    trt = make(dump)
    builder = trt.Builder(trt.Logger())
    it = SimpleNamespace(
        builder=builder, network=builder.create_network(), config=builder.create_builder_config()
    )
    with pytest.raises((AttributeError, TypeError)):
        mistake(trt, it)


def test_what_the_parser_of_tensorrt_says_is_passed_on(make: Make, request_for: Make) -> None:
    answers = {
        "OnnxParser.parse": False,
        "OnnxParser.num_errors": 2,
        "ParserError.desc": "no importer for Magic\nsecond line",
    }
    with pytest.raises(Stopped) as caught:
        build_engine(make("10.3.0_cu12", answers), **request_for(FP16))
    assert caught.value.outcome == "refused"
    expected = "does not take the graph: no importer for Magic; no importer for Magic$"
    assert re.search(expected, caught.value.message)


def test_no_engine_and_no_int8_are_said(make: Make, request_for: Make) -> None:
    request = request_for(INT8)
    with pytest.raises(Stopped, match=r"TensorRT 10\.3\.0 gave no engine") as caught:
        build_engine(make("10.3.0_cu12", {"Builder.build_serialized_network": None}), **request)
    assert caught.value.outcome == "build-failed"
    with pytest.raises(Stopped, match="this GPU has no INT8") as caught:
        build_engine(make("8.6.1", {"Builder.platform_has_fast_int8": False}), **request)
    assert caught.value.outcome == "refused"
    assert not Path(request["engine"]).exists()


@pytest.mark.parametrize("dump", ["8.6.1", "11.4.0.106_cu12"])
def test_a_timing_cache_that_does_not_fit_is_left(make: Make, request_for: Make, dump: str) -> None:
    request = request_for(FP16 if dump == "8.6.1" else TYPED)
    Path(request["timing_cache"]).write_bytes(b"of another GPU")
    trt = make(dump, {"IBuilderConfig.set_timing_cache": lambda *_: False})
    build_engine(trt, **request)
    created = [one for name, one in trt.calls if name == "IBuilderConfig.create_timing_cache"]
    assert created == [(b"of another GPU",), (b"",)]
