import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeship.errors import ExportFailed
from edgeship.runtimes.litert import LiteRtRuntime, refused

INNER = ("conv/conv_2d", "relu", "again/conv_2d", "add", "pool", "flatten", "logits")


def make_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 5, 5, 2)).astype(np.float32)


def expected_tensors(net: Any, image: np.ndarray) -> dict[str, np.ndarray]:  # noqa: ANN401 - conftest's
    with torch.no_grad():
        found = net.tensors(torch.tensor(image).permute(0, 3, 1, 2))
    return {name: value.numpy() for name, value in found.items()}


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_gives_what_torch_does(net: Any, net_file: Path, threads: int) -> None:  # noqa: ANN401
    session = LiteRtRuntime().open(net_file, threads=threads)
    for seed in range(3):
        found = session.run({"image": make_image(seed)})
        assert list(found) == ["logits"]
        expected = expected_tensors(net, make_image(seed))["logits"]
        np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-6)


def test_outputs_outlive_the_next_run(net_file: Path) -> None:
    session = LiteRtRuntime().open(net_file)
    first = session.run({"image": make_image(0)})["logits"]
    kept = first.copy()
    second = session.run({"image": make_image(1)})["logits"]
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_an_input_that_is_a_view_is_read_in_its_own_order(net_file: Path) -> None:
    image = make_image()
    view = np.ascontiguousarray(image.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    session = LiteRtRuntime().open(net_file)
    np.testing.assert_array_equal(
        session.run({"image": view})["logits"], session.run({"image": image})["logits"]
    )


def test_outputs_have_the_signatures_names_in_the_files_order(two_outputs: Path) -> None:
    values = np.array([[-2.0, -1.0, 0.5, 3.0]], np.float32)
    found = LiteRtRuntime().open(two_outputs).run({"x": values})
    assert list(found) == ["z", "a"]
    np.testing.assert_array_equal(found["z"], -values)
    np.testing.assert_array_equal(found["a"], np.maximum(values, 0))


def test_without_a_signature_tensor_names_count(
    new_graph: Callable[[], Any], tmp_path: Path
) -> None:
    graph = new_graph()
    x, y = graph.tensor("left", [1, 4]), graph.tensor("right", [1, 4])
    graph.operator("RELU", [x], y)
    (tmp_path / "plain.tflite").write_bytes(graph.content([x], [y]))
    values = np.array([[-2.0, -1.0, 0.5, 3.0]], np.float32)
    found = LiteRtRuntime().open(tmp_path / "plain.tflite").run({"left": values})
    np.testing.assert_array_equal(found["right"], np.maximum(values, 0))


def test_observed_tensors_equal_torchs_in_every_run(net: Any, net_file: Path) -> None:  # noqa: ANN401
    with LiteRtRuntime().observe(net_file, INNER) as session:
        for seed in range(3):
            found = session.run({"image": make_image(seed)})
            expected = expected_tensors(net, make_image(seed))
            assert list(found) == list(INNER)
            for name, values in found.items():
                np.testing.assert_allclose(
                    values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name
                )


def test_tensors_observed_in_one_run_outlive_the_next(net_file: Path) -> None:
    with LiteRtRuntime().observe(net_file, INNER) as session:
        first = session.run({"image": make_image(0)})
        kept = {name: values.copy() for name, values in first.items()}
        session.run({"image": make_image(1)})
    for name, values in first.items():
        np.testing.assert_array_equal(values, kept[name], err_msg=name)


def test_observing_gives_the_tensors_as_asked_without_the_inputs(net_file: Path) -> None:
    before = net_file.read_bytes()
    with LiteRtRuntime().observe(net_file, ["logits", "image", "relu"]) as session:
        assert list(session.run({"image": make_image()})) == ["logits", "relu"]
    assert net_file.read_bytes() == before


def test_a_tensor_that_is_not_in_the_file_is_refused(net_file: Path) -> None:
    with (
        pytest.raises(ExportFailed, match=r"net\.tflite.*no_such_tensor"),
        LiteRtRuntime().observe(net_file, ["relu", "no_such_tensor"]),
    ):
        pass


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ({"image": np.zeros((1, 2, 5, 5), np.float32)}, r"found image float32\[1, 2, 5, 5\]"),
        ({"image": np.zeros((1, 5, 5, 2))}, r"found image float64\[1, 5, 5, 2\]"),
        ({"picture": np.zeros((1, 5, 5, 2), np.float32)}, "found picture"),
        ({}, "found none"),
    ],
    ids=["shape", "dtype", "name", "none"],
)
def test_inputs_that_do_not_fit_are_one_clear_error(
    net_file: Path, inputs: dict[str, np.ndarray], found: str
) -> None:
    session = LiteRtRuntime().open(net_file)
    with pytest.raises(ExportFailed, match=rf"expected image float32\[1, 5, 5, 2\], {found}"):
        session.run(inputs)


@pytest.mark.parametrize(
    "content", [b"", b"hello world", random.Random(0).randbytes(1000)], ids=["", "text", "noise"]
)
def test_garbage_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    garbage = tmp_path / "garbage.tflite"
    garbage.write_bytes(content)
    with pytest.raises(ExportFailed, match=r"garbage\.tflite: LiteRT \d") as caught:
        LiteRtRuntime().open(garbage)
    assert int(caught.value.exit_code) == 3


def test_a_file_that_was_cut_off_is_refused(net_file: Path, tmp_path: Path) -> None:
    content = net_file.read_bytes()
    cut = tmp_path / "cut.tflite"
    for length in (len(content) // 4, len(content) // 2, len(content) * 3 // 4):
        cut.write_bytes(content[:length])
        with pytest.raises(ExportFailed, match=r"cut\.tflite"):
            LiteRtRuntime().open(cut)


def test_an_operator_that_is_too_new_is_refused_with_its_version(too_new: Path) -> None:
    expected = r"new\.tflite: LiteRT \d\S+ has no version 99 of the operator RELU;"
    with pytest.raises(ExportFailed, match=expected):
        LiteRtRuntime().open(too_new)


def test_a_custom_operator_is_refused_by_name(new_graph: Callable[[], Any], tmp_path: Path) -> None:
    graph = new_graph()
    x, y = graph.tensor("x", [1, 4]), graph.tensor("y", [1, 4])
    graph.operator("CUSTOM", [x], y)
    graph.codes[0].customCode = b"NoSuchOperator"
    (tmp_path / "odd.tflite").write_bytes(graph.content([x], [y]))
    with pytest.raises(ExportFailed, match=r"LiteRT \S+ has no operator NoSuchOperator;"):
        LiteRtRuntime().open(tmp_path / "odd.tflite")


def test_a_message_that_no_one_knows_is_passed_on() -> None:
    error = refused(Path("a.tflite"), "LiteRT 9", "node 3 (DIV)\n failed to prepare.")
    assert "node 3 (DIV) failed to prepare." in str(error)


def test_the_vendors_banner_stays_off_stderr(net_file: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from edgeship.runtimes.litert import LiteRtRuntime\n"
        "runtime = LiteRtRuntime()\nsession = runtime.open(Path(sys.argv[1]))\n"
        "with runtime.observe(Path(sys.argv[1]), ['relu']): pass\n"
        "print('after', file=sys.stderr)"
    )
    done = run_python(code, str(net_file))
    assert done.stderr == "after\n"


def test_the_vendor_would_print_it(net_file: Path) -> None:
    """Without this, the test above could pass because nothing is printed at all."""
    code = (
        "import sys\nfrom ai_edge_litert.interpreter import Interpreter\n"
        "Interpreter(model_path=sys.argv[1]).allocate_tensors()"
    )
    assert run_python(code, str(net_file)).stderr.startswith("INFO: ")


def test_what_is_no_banner_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    from edgeship.runtimes.litert import without_banner

    with without_banner():
        os.write(2, b"INFO: Created\nERROR: lost\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "ERROR: lost\n"
