import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeship.device_tests.board.stopped import Stopped
from edgeship.vocabulary import ChannelOrder, Layout


def test_a_pack_that_is_right_is_ok_in_each_comparison(
    tmp_path: Path, packs: SimpleNamespace
) -> None:
    ended, events = packs.smoked(packs.image_artifact(tmp_path / "a", packs.image_spec()))
    assert ended == {"outcome": "ok", "message": None, "diagnosis": None}
    assert [event["event"] for event in events] == ["start", *["case"] * 6, "memory"]
    cases = [event for event in events if event["event"] == "case"]
    assert [(event["of"], event["is_ok"]) for event in cases] == [
        ("preprocessing", True),
        ("artifact-on-host", True),
        ("float-model", True),
    ] * 2
    memory = events[-1]
    assert 0 < memory["imported_bytes"] <= memory["peak_bytes"]
    assert (events[0]["package"], events[0]["runtime"]) == ("onnxruntime", "onnxruntime")


def test_a_file_of_another_input_shape_is_a_mismatch_and_not_run(
    tmp_path: Path, packs: SimpleNamespace
) -> None:
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec())
    packs.write_onnx(artifact.directory / "model.onnx", [packs.image_spec(Layout.NHWC)])
    artifact = packs.seal(artifact.directory, artifact.manifest.contract)
    ended, events = packs.smoked(artifact)
    assert ended["outcome"] == "mismatch"
    assert "is float32[1, 6, 6, 3], and float32[1, 3, 6, 6] is given" in ended["message"]
    assert {event["of"] for event in events if event["event"] == "case"} == {
        "preprocessing",
        "file",
    }


@pytest.mark.parametrize("name", ["model.onnx", "golden/golden.json", "golden/case0.raw.bin"])
def test_a_byte_that_changed_is_damage(tmp_path: Path, packs: SimpleNamespace, name: str) -> None:
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec())
    path = artifact.directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Stopped, match=f"^{name} is not the file that was built") as caught:
        packs.smoked(artifact)
    assert caught.value.outcome == "damaged"


def test_a_manifest_that_was_changed_is_damage(tmp_path: Path, packs: SimpleNamespace) -> None:
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec())
    path = artifact.directory / "manifest.json"
    path.write_text(path.read_text().replace("0.41", "0.42"))
    with pytest.raises(Stopped, match="changed after it was sealed"):
        packs.smoked(artifact)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a//b"])
def test_a_name_that_leads_out_is_refused(
    tmp_path: Path, packs: SimpleNamespace, name: str
) -> None:
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec())
    path = artifact.directory / "manifest.json"
    path.write_text(path.read_text().replace('"model.onnx"', json.dumps(name)))
    with pytest.raises(Stopped, match="file name"):
        packs.smoked(artifact)


def test_a_file_that_the_runtime_does_not_read_is_refused(
    tmp_path: Path, packs: SimpleNamespace
) -> None:
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec())
    (artifact.directory / "model.onnx").write_bytes(b"no model")
    with pytest.raises(Stopped) as caught:
        packs.smoked(packs.seal(artifact.directory, artifact.manifest.contract))
    assert caught.value.outcome == "refused"


def test_a_runtime_older_than_the_least_counts_as_none(
    tmp_path: Path, packs: SimpleNamespace
) -> None:
    artifact = packs.image_artifact(tmp_path / "a", packs.image_spec())
    with pytest.raises(Stopped, match=r"is older than 99\.1$") as caught:
        packs.smoked(artifact, least="99.1")
    assert caught.value.outcome == "no-runtime"


def test_quantized_inputs_are_made_from_raw_bytes_exactly(
    tmp_path: Path, packs: SimpleNamespace
) -> None:
    spec = packs.integers(packs.image_spec(Layout.NHWC), 0.0235, 7)
    artifact = packs.image_artifact(
        tmp_path / "a", spec, answer=lambda inputs: packs.linear(inputs), count=3
    )
    _, events = packs.smoked(artifact)
    own = [event for event in events if event.get("of") == "preprocessing"]
    assert [event["difference"] for event in own] == [0.0] * 3


def test_grey_images_have_one_channel(packs: SimpleNamespace) -> None:
    from edgeship.device_tests.board.preprocess import input_from_pixels, pixels_of, recipe_of

    spec = packs.image_spec(order=ChannelOrder.GRAY, mean=(0.5,), std=(0.25,))
    spec = replace(spec, shape=(1, 1, 6, 6)).to_json()
    raw = np.arange(36, dtype=np.uint8)
    found = input_from_pixels(pixels_of(raw, spec), spec, recipe_of(spec))
    expected = (raw.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    np.testing.assert_array_equal(found, expected.reshape(1, 1, 6, 6))
