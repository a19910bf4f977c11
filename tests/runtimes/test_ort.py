import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from edgeship.errors import ExportFailed
from edgeship.runtimes.ort import OrtRuntime

TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[1, 2, 5, 5] image) => (float[1, 4] logits)
{
    c = Conv<pads = [1, 1, 1, 1]>(image, conv_w, conv_b)
    r = Relu(c)
    m = GlobalAveragePool(r)
    f = Flatten(m)
    logits = Gemm<transB = 1>(f, fc_w, fc_b)
}
"""


def make_module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 4),
    )


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    proto = onnx.parser.parse_model(TEXT)
    state = make_module().state_dict()
    names = {"conv_w": "0.weight", "conv_b": "0.bias", "fc_w": "4.weight", "fc_b": "4.bias"}
    for name, key in names.items():
        proto.graph.initializer.append(numpy_helper.from_array(state[key].numpy(), name))
    path = tmp_path_factory.mktemp("ort") / "net.onnx"
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_gives_every_output_by_name(file: Path, image: np.ndarray, threads: int) -> None:
    found = OrtRuntime().open(file, threads=threads).run({"image": image})
    with torch.no_grad():
        expected = make_module()(torch.tensor(image)).numpy()
    assert list(found) == ["logits"]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-6)


def test_observed_tensors_equal_those_of_a_torch_hook(file: Path, image: np.ndarray) -> None:
    module = make_module()
    seen: dict[str, np.ndarray] = {}
    for name, part in zip(("c", "r", "m", "f", "logits"), module, strict=True):
        part.register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(name, out.detach().numpy())
        )
    module(torch.tensor(image))
    with OrtRuntime().observe(file, ["r", "image", "logits", "c", "m"]) as session:
        found = session.run({"image": image})
    assert list(found) == ["r", "logits", "c", "m"]  # as asked, without the input
    for name, values in found.items():
        np.testing.assert_allclose(values, seen[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_observing_leaves_the_file_as_it_is(file: Path, image: np.ndarray) -> None:
    before = file.read_bytes()
    with OrtRuntime().observe(file, ["r"]) as session:
        session.run({"image": image})
    assert file.read_bytes() == before


def test_a_tensor_that_is_not_in_the_file_is_refused(file: Path) -> None:
    with (
        pytest.raises(ExportFailed, match=r"net\.onnx.*no_such_tensor"),
        OrtRuntime().observe(file, ["no_such_tensor"]),
    ):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"hello world", random.Random(0).randbytes(1000)], ids=["", "text", "noise"]
)
def test_garbage_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(content)
    with pytest.raises(ExportFailed, match=r"garbage\.onnx") as caught:
        OrtRuntime().open(garbage)
    assert int(caught.value.exit_code) == 3
    with (
        pytest.raises(ExportFailed, match=r"garbage\.onnx"),
        OrtRuntime().observe(garbage, ["x"]),
    ):
        pass


def test_an_operator_that_no_one_knows_is_refused_by_name(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    net (float[1, 2] x) => (float[1, 2] out) { out = NoSuchOperator(x) }
    """
    onnx.save(onnx.parser.parse_model(text), tmp_path / "odd.onnx")
    with pytest.raises(ExportFailed, match="NoSuchOperator"):
        OrtRuntime().open(tmp_path / "odd.onnx")


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_flipped_byte_loads_or_is_refused(file: Path, place: float, byte: int) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] = byte
    flipped = file.with_stem("flipped")
    flipped.write_bytes(content)
    try:
        OrtRuntime().open(flipped)
    except ExportFailed:
        return


def test_a_refusal_prints_nothing(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names that are no UTF-8 once made the vendor's package print to stdout and try again."""
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(file.read_bytes().replace(b"conv_w", b"\xff\xfe\xfdv_w", 1))
    with pytest.raises(ExportFailed, match=r"damaged\.onnx"):
        OrtRuntime().open(damaged)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "use",
    [
        "from edgeship.runtimes.ort import OrtRuntime\n"
        "from pathlib import Path\nOrtRuntime().open(Path(sys.argv[1]))",
        "import onnx\nfrom edgeship.calibration.ranges import Ranges\n"
        "from edgeship.exporters.onnx.qdq import quantized_graph\n"
        "proto = onnx.load(sys.argv[1])\nranges = Ranges(by_name={}, dead=(), masks=('image',))\n"
        "kept = [node.name for node in proto.graph.node]\n"
        "quantized_graph(\n"
        "    proto, ranges, is_activation_signed=False, reduce_range=False, kept=kept\n)",
    ],
    ids=["run", "quantize"],
)
def test_no_telemetry_session_is_opened(file: Path, tmp_path: Path, use: str) -> None:
    """The vendor's package keeps such a session's identity in a file of the temporary directory."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", f"import sys\n{use}", str(file)],
        env=environment | {"TMPDIR": str(tmp_path)},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
