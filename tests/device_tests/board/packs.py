"""Artifacts with a golden pack, of files of one layer."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeship.artifact import (
    Artifact,
    Manifest,
    Requirements,
    RuntimeNeed,
    describe_file,
    write_manifest,
)
from edgeship.calibration.preprocess import input_from_pixels
from edgeship.calibration.samples import LoadedSample
from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.device_tests.board.lines import Lines
from edgeship.device_tests.board.smoke import run
from edgeship.evaluate.golden import run_case, write_golden_pack
from edgeship.vocabulary import ChannelOrder, Format, Layout, Role

Function = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

MEAN = (0.41, 0.47, 0.53)
STD = (0.21, 0.26, 0.31)
SIZE = 6
LOGITS = TensorSpec(name="logits", shape=(1, 4))


def image_spec(
    layout: Layout = Layout.NCHW,
    *,
    order: ChannelOrder = ChannelOrder.RGB,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> TensorSpec:
    preprocess = Preprocess(size=(SIZE, SIZE), order=order, mean=mean, std=std)
    shape = (1, 3, SIZE, SIZE) if layout is Layout.NCHW else (1, SIZE, SIZE, 3)
    return TensorSpec(name="image", shape=shape, layout=layout, preprocess=preprocess)


def integers(spec: TensorSpec, scale: float, zero_point: int) -> TensorSpec:
    return replace(spec, dtype="int8", scale=scale, zero_point=zero_point)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def weights(rows: int = 3 * SIZE * SIZE) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((rows, 4)).astype(np.float32)


def linear(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `write_onnx` writes, of one input: its values in their order times the weights."""
    (values,) = inputs.values()
    flat = values.reshape(1, -1).astype(np.float32)
    return {"logits": flat @ weights(flat.shape[1])}


def weighted(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `write_onnx` writes, of several inputs: the first, twice the second, and so on."""
    parts = [values * np.float32(at + 1) for at, values in enumerate(inputs.values())]
    logits: np.ndarray = np.stack(parts).sum(axis=0, dtype=np.float32)
    return {"logits": logits}


def write_onnx(path: Path, specs: Sequence[TensorSpec]) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    types = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8}
    nodes, constants = [], []
    if len(specs) == 1:
        (spec,) = specs
        nodes = [
            helper.make_node("Cast", [spec.name], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["real"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ]
        constants = [numpy_helper.from_array(weights(int(np.prod(spec.shape))), "w")]
    else:
        for at, spec in enumerate(specs):
            constants.append(numpy_helper.from_array(np.array(at + 1, np.float32), f"w{at}"))
            nodes.append(helper.make_node("Mul", [spec.name, f"w{at}"], [f"p{at}"]))
        nodes.append(helper.make_node("Sum", [f"p{at}" for at in range(len(specs))], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(it.name, types[it.dtype], it.shape) for it in specs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))


def seal(
    directory: Path,
    contract: Contract,
    *,
    model: str = "model.onnx",
    runtimes: Sequence[tuple[str, str]] = (("onnxruntime", "1.10"),),
) -> Artifact:
    """Write the manifest over what is in the directory."""
    names = sorted(path.name for path in (directory / "golden").iterdir())
    manifest = Manifest(
        edgeship="0",
        target="linux-x86-64",
        format=Format({"onnx": "onnx", "tflite": "tflite", "gguf": "gguf"}[model.split(".")[1]]),
        precision="fp32",
        files=(
            describe_file(directory, model, Role.MODEL),
            *(describe_file(directory, f"golden/{name}", Role.GOLDEN) for name in names),
        ),
        source={},
        tools={},
        contract=contract,
        requires=Requirements(
            any_of=tuple(RuntimeNeed(runtime=name, min=least) for name, least in runtimes)
        ),
    )
    write_manifest(directory, manifest)
    return Artifact(directory=directory, manifest=manifest)


def image_artifact(
    directory: Path,
    given: TensorSpec,
    *,
    claimed: TensorSpec | None = None,
    answer: Function = linear,
    content: bytes | None = None,
    count: int = 2,
) -> Artifact:
    """A golden pack of noise.

    Args:
        directory: To make.
        given: How the golden inputs are made, and what the ONNX file takes.
        claimed: What the manifest says of the input, where that is another thing.
        answer: What the outputs are said to be.
        content: Of a .tflite file instead of the ONNX file.
        count: Of cases.
    """
    directory.mkdir(parents=True)
    contract = Contract(inputs=(given,), outputs=(LOGITS,))
    floats = replace(given, dtype="float32", scale=None, zero_point=None)
    cases = []
    for seed in range(count):
        sample = LoadedSample(
            inputs={"image": input_from_pixels(pixels(seed), floats)}, pixels=pixels(seed)
        )
        cases.append(
            run_case(
                f"noise {seed}",
                sample,
                model_inputs=(floats,),
                contract=contract,
                artifact=answer,
                reference=lambda inputs: answer(inputs) if given.scale is None else linear(inputs),
            )
        )
    write_golden_pack(directory, cases, contract, output_steps={"logits": 1e-3})
    if content is None:
        write_onnx(directory / "model.onnx", [given])
        return seal(directory, Contract(inputs=(claimed or given,), outputs=(LOGITS,)))
    (directory / "model.tflite").write_bytes(content)
    return seal(
        directory,
        contract,
        model="model.tflite",
        runtimes=(("litert", "2.0"), ("tflite_runtime", "2.5")),
    )


def array_artifact(
    directory: Path, samples: Sequence[Mapping[str, np.ndarray]], answer: Function = weighted
) -> Artifact:
    """Several inputs of one shape, float32[1, 4]."""
    directory.mkdir(parents=True)
    specs = tuple(TensorSpec(name=name, shape=(1, 4)) for name in samples[0])
    contract = Contract(inputs=specs, outputs=(LOGITS,))
    cases = [
        run_case(
            f"array {index}",
            LoadedSample(inputs=dict(inputs), pixels=None),
            model_inputs=specs,
            contract=contract,
            artifact=answer,
            reference=answer,
        )
        for index, inputs in enumerate(samples)
    ]
    write_golden_pack(directory, cases, contract, output_steps={"logits": 1e-3})
    write_onnx(directory / "model.onnx", specs)
    return seal(directory, contract)


def smoked(artifact: Artifact, **options: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last event's keys of a smoke test in this process, and the events before it."""
    stream = io.BytesIO()
    known = {"runtime": "onnxruntime", "threads": 1}
    absent = dict.fromkeys(("program", "least", "sample", "outputs"))
    ended = run(
        Namespace(artifact=str(artifact.directory), **{**absent, **known, **options}),
        Lines(stream),
    )
    return ended, [json.loads(line) for line in stream.getvalue().splitlines()]
