import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeship.calibration.preprocess import input_from_pixels
from edgeship.calibration.samples import LoadedSample
from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.errors import EdgeshipError, ExitCode
from edgeship.evaluate.golden import GoldenCase, run_case, write_golden_pack
from edgeship.evaluate.outputs import Run
from edgeship.vocabulary import ChannelOrder, Layout

LOGITS = TensorSpec(name="logits", shape=(1, 5))
FEATURES = TensorSpec(name="features/0", shape=(1, 2, 2))
X = TensorSpec(name="x", shape=(1, 3))
IDS = TensorSpec(name="ids", shape=(1, 4), dtype="int64")
STEPS = {"logits": 0.25}


def image_spec(order: ChannelOrder, layout: Layout = Layout.NCHW) -> TensorSpec:
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    if order is ChannelOrder.GRAY:
        mean, std = mean[:1], std[:1]
    preprocess = Preprocess(size=(4, 6), order=order, mean=mean, std=std)
    channels = preprocess.channels
    shape = (1, channels, 4, 6) if layout is Layout.NCHW else (1, 4, 6, channels)
    return TensorSpec(name="image", shape=shape, layout=layout, preprocess=preprocess)


def artifact(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Quantized logits, and features that differ from the model's by little."""
    exact = model(inputs)
    logits = np.round(exact["logits"] / np.float32(0.25)) * np.float32(0.25)
    return {"logits": logits, "features/0": exact["features/0"] * np.float32(1.001)}


def model(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    total = np.float32(sum(float(value.sum()) for value in inputs.values()))
    return {
        "logits": np.sin(np.arange(5, dtype=np.float32) + total)[np.newaxis] * 3,
        "features/0": np.cos(np.arange(4, dtype=np.float32) - total).reshape(1, 2, 2),
    }


def array_sample(seed: int) -> LoadedSample:
    generator = np.random.default_rng(seed)
    inputs: dict[str, np.ndarray] = {
        "ids": generator.integers(-9, 9, (1, 4)),
        "x": generator.standard_normal((1, 3), dtype=np.float32),
    }
    return LoadedSample(inputs=inputs, pixels=None)


def image_sample(spec: TensorSpec, seed: int) -> LoadedSample:
    assert spec.preprocess is not None
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (4, 6, spec.preprocess.channels), dtype=np.uint8)
    return LoadedSample(inputs={"image": input_from_pixels(pixels, spec)}, pixels=pixels)


ARRAYS = Contract(inputs=(X, IDS), outputs=(LOGITS, FEATURES))


def golden_case(
    name: str,
    sample: LoadedSample,
    contract: Contract,
    artifact: Run = artifact,
    reference: Run = model,
) -> GoldenCase:
    return run_case(
        name,
        sample,
        model_inputs=contract.inputs,
        contract=contract,
        artifact=artifact,
        reference=reference,
    )


def write(
    directory: Path,
    samples: list[LoadedSample],
    contract: Contract,
    *,
    steps: Mapping[str, float] = STEPS,
) -> tuple[list[GoldenCase], dict[str, Any], list[str]]:
    cases = [
        golden_case(f"sample {index}", sample, contract) for index, sample in enumerate(samples)
    ]
    names = write_golden_pack(directory, cases, contract, output_steps=steps)
    pack = json.loads((directory / "golden" / "golden.json").read_bytes())
    return cases, pack, names


def read_tensor(directory: Path, entry: dict[str, Any]) -> np.ndarray:
    """As a board would: little-endian, of the dtype and shape that the pack names."""
    content = (directory / "golden" / entry["file"]).read_bytes()
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    return np.frombuffer(content, dtype).reshape(entry["shape"])


@pytest.fixture
def arrays_pack(tmp_path: Path) -> tuple[Path, list[GoldenCase], dict[str, Any], list[str]]:
    cases, pack, names = write(tmp_path, [array_sample(1), array_sample(2)], ARRAYS)
    return tmp_path, cases, pack, names


ArraysPack = tuple[Path, list[GoldenCase], dict[str, Any], list[str]]


# Schema


def test_keys_are_exactly_those_of_schema_1(tmp_path: Path) -> None:
    spec = image_spec(ChannelOrder.RGB)
    contract = Contract(inputs=(spec,), outputs=(LOGITS, FEATURES))
    _, pack, _ = write(tmp_path, [image_sample(spec, 1)], contract)
    assert set(pack) == {"schema", "cases"}
    assert pack["schema"] == 1
    (case,) = pack["cases"]
    assert set(case) == {"id", "raw", "inputs", "expect"}
    assert set(case["raw"]) == {"file", "dtype", "layout", "order"}
    assert (case["raw"]["dtype"], case["raw"]["layout"]) == ("uint8", "HWC")
    for entry in case["inputs"]:
        assert set(entry) == {"name", "file", "dtype", "shape", "sha256"}
    for entry in case["expect"]:
        assert set(entry) == {"name", "file", "dtype", "shape", "of", "compare"}
        assert set(entry["compare"]) == {"kind", "limit"}
        assert entry["compare"]["kind"] in {"exact", "lsb", "close", "argmax", "tokens", "kld"}


def test_samples_that_are_no_images_have_no_raw(arrays_pack: ArraysPack) -> None:
    _, _, pack, _ = arrays_pack
    assert [set(case) for case in pack["cases"]] == [{"id", "inputs", "expect"}] * 2


def test_every_case_expects_each_output_of_both(arrays_pack: ArraysPack) -> None:
    _, _, pack, _ = arrays_pack
    assert [case["id"] for case in pack["cases"]] == ["sample 0", "sample 1"]
    for case in pack["cases"]:
        assert [(entry["name"], entry["of"]) for entry in case["expect"]] == [
            ("logits", "artifact-on-host"),
            ("logits", "float-model"),
            ("features/0", "artifact-on-host"),
            ("features/0", "float-model"),
        ]


def test_inputs_are_in_the_order_of_the_contract(arrays_pack: ArraysPack) -> None:
    _, _, pack, _ = arrays_pack
    for case in pack["cases"]:
        assert [entry["name"] for entry in case["inputs"]] == ["x", "ids"]


# Files


def test_tensors_read_back_from_disk_are_those_that_ran(arrays_pack: ArraysPack) -> None:
    directory, cases, pack, _ = arrays_pack
    for case, entry in zip(cases, pack["cases"], strict=True):
        for tensor in entry["inputs"]:
            found, expected = read_tensor(directory, tensor), case.sample.inputs[tensor["name"]]
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            assert found.tobytes() == expected.tobytes()
            content = (directory / "golden" / tensor["file"]).read_bytes()
            assert tensor["sha256"] == hashlib.sha256(content).hexdigest()
        for tensor in entry["expect"]:
            is_artifact = tensor["of"] == "artifact-on-host"
            expected = (case.artifact if is_artifact else case.reference)[tensor["name"]]
            assert np.array_equal(read_tensor(directory, tensor), expected)
            assert tensor["dtype"] == "float32"


def test_files_hold_the_bytes_that_struct_would_write(tmp_path: Path) -> None:
    sample = LoadedSample(
        inputs={
            "x": np.array([[1.0, -2.0, 0.5]], np.float32),
            "ids": np.array([[1, -1, 256, 0]]),
        },
        pixels=None,
    )
    _, pack, _ = write(tmp_path, [sample], ARRAYS)
    x, ids = pack["cases"][0]["inputs"]
    assert (tmp_path / "golden" / x["file"]).read_bytes().hex() == "0000803f000000c00000003f"
    assert (tmp_path / "golden" / ids["file"]).read_bytes().hex() == (
        "0100000000000000" + "ff" * 8 + "0001000000000000" + "00" * 8
    )


def test_big_endian_arrays_become_little_endian(tmp_path: Path) -> None:
    plain = array_sample(1)
    swapped = LoadedSample(
        inputs={
            name: value.astype(value.dtype.newbyteorder(">"))
            for name, value in plain.inputs.items()
        },
        pixels=None,
    )
    (tmp_path / "plain").mkdir()
    (tmp_path / "swapped").mkdir()
    write(tmp_path / "plain", [plain], ARRAYS)
    write(tmp_path / "swapped", [swapped], ARRAYS)
    for path in (tmp_path / "plain" / "golden").iterdir():
        assert path.read_bytes() == (tmp_path / "swapped" / "golden" / path.name).read_bytes()


def test_the_names_returned_are_all_files_that_were_written(arrays_pack: ArraysPack) -> None:
    directory, _, _, names = arrays_pack
    assert sorted(names) == sorted(
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )
    assert len(set(names)) == len(names)
    assert names[0] == "golden/golden.json"


def test_names_of_files_do_not_come_from_names_of_tensors_or_samples(tmp_path: Path) -> None:
    odd = TensorSpec(name="../logits", shape=(1, 5))
    contract = Contract(inputs=(X, IDS), outputs=(odd,))
    case = golden_case(
        "../../etc/passwd",
        array_sample(1),
        contract,
        lambda inputs: {"../logits": model(inputs)["logits"]},
        lambda inputs: {"../logits": model(inputs)["logits"]},
    )
    write_golden_pack(tmp_path, [case], contract, output_steps={})
    assert [path.name for path in tmp_path.iterdir()] == ["golden"]


def test_the_same_cases_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, [array_sample(1), array_sample(2)], ARRAYS)
    for path in (tmp_path / "one" / "golden").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "golden" / path.name).read_bytes()


# Raw pixels


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("order", list(ChannelOrder))
def test_raw_pixels_give_the_inputs_bit_for_bit(
    tmp_path: Path, order: ChannelOrder, layout: Layout
) -> None:
    spec = image_spec(order, layout)
    contract = Contract(inputs=(spec,), outputs=(LOGITS, FEATURES))
    _, pack, _ = write(tmp_path, [image_sample(spec, 1), image_sample(spec, 2)], contract)
    read_spec = Contract.from_json(json.loads(json.dumps(contract.to_json()))).inputs[0]
    assert read_spec.preprocess is not None
    for case in pack["cases"]:
        raw = case["raw"]
        assert raw["order"] == ("GRAY" if order is ChannelOrder.GRAY else "RGB")
        content = (tmp_path / "golden" / raw["file"]).read_bytes()
        pixels = np.frombuffer(content, np.uint8)
        pixels = pixels.reshape(*read_spec.preprocess.size, read_spec.preprocess.channels)
        found = input_from_pixels(pixels, read_spec)
        expected = read_tensor(tmp_path, case["inputs"][0])
        worst = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
        assert found.tobytes() == expected.tobytes(), (worst, found[worst], expected[worst])


# Limits


def test_limits_hold_for_the_artifact_on_this_host(arrays_pack: ArraysPack) -> None:
    directory, cases, pack, _ = arrays_pack
    for case, entry in zip(cases, pack["cases"], strict=True):
        for tensor in entry["expect"]:
            expected = read_tensor(directory, tensor).astype(np.float64)
            apart = np.abs(case.artifact[tensor["name"]] - expected)
            limit = tensor["compare"]["limit"]
            worst = np.unravel_index(apart.argmax(), apart.shape)
            assert apart[worst] <= limit, (tensor["name"], tensor["of"], worst)


def test_limits_are_one_step_a_ten_thousandth_of_the_peak_or_the_own_error(
    arrays_pack: ArraysPack,
) -> None:
    _, cases, pack, _ = arrays_pack
    peak = max(float(np.abs(case.artifact["features/0"]).max()) for case in cases)
    error = max(
        float(np.abs(case.artifact["features/0"] - case.reference["features/0"]).max())
        for case in cases
    )
    assert error > 1e-4 * peak
    own = {"logits": 0.25, "features/0": error}
    for entry in pack["cases"]:
        for tensor in entry["expect"]:
            name = tensor["name"]
            apart = max(
                float(np.abs(case.artifact[name].astype(float) - case.reference[name]).max())
                for case in cases
            )
            extra = 0.0 if tensor["of"] == "artifact-on-host" else apart
            assert tensor["compare"]["limit"] == pytest.approx(own[name] + extra, rel=1e-12)


def test_an_output_that_is_zero_throughout_still_has_a_limit(tmp_path: Path) -> None:
    def silent(_: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": np.zeros((1, 5), np.float32)}

    contract = Contract(inputs=(X, IDS), outputs=(LOGITS,))
    case = golden_case("0", array_sample(1), contract, silent, silent)
    write_golden_pack(tmp_path, [case], contract, output_steps={})
    pack = json.loads((tmp_path / "golden" / "golden.json").read_bytes())
    limits = [entry["compare"]["limit"] for entry in pack["cases"][0]["expect"]]
    assert limits == [1e-4, 1e-4]


def test_the_difference_of_unsigned_outputs_does_not_wrap(tmp_path: Path) -> None:
    spec = TensorSpec(name="logits", shape=(1, 2), dtype="uint8")
    contract = Contract(inputs=(X, IDS), outputs=(spec,))
    case = golden_case(
        "0",
        array_sample(1),
        contract,
        lambda _: {"logits": np.array([[1, 250]], np.uint8)},
        lambda _: {"logits": np.array([[3, 249]], np.uint8)},
    )
    write_golden_pack(tmp_path, [case], contract, output_steps={"logits": 1.0})
    pack = json.loads((tmp_path / "golden" / "golden.json").read_bytes())
    limits = [entry["compare"]["limit"] for entry in pack["cases"][0]["expect"]]
    assert limits == [1.0, 3.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("culprit", ["artifact", "model"])
def test_outputs_that_are_not_finite_are_refused_by_case_and_output(
    tmp_path: Path, bad: float, culprit: str
) -> None:
    def spoil(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**model(inputs), "features/0": np.full((1, 2, 2), bad, np.float32)}

    runs = (spoil, model) if culprit == "artifact" else (model, spoil)
    case = golden_case("dog/1.png", array_sample(1), ARRAYS, *runs)
    with pytest.raises(EdgeshipError) as caught:
        write_golden_pack(tmp_path, [case], ARRAYS, output_steps=STEPS)
    assert caught.value.exit_code is ExitCode.EXPORT_FAILED
    assert "dog/1.png" in str(caught.value)
    assert "'features/0'" in str(caught.value)
    assert culprit in str(caught.value)


# Integers


def stored_spec(name: str, shape: tuple[int, ...], scale: float, zero_point: int) -> TensorSpec:
    layout = Layout.NHWC if len(shape) == 4 else None
    return TensorSpec(
        name=name, shape=shape, dtype="int8", layout=layout, scale=scale, zero_point=zero_point
    )


def test_integers_are_stored_as_the_file_has_them_and_held_in_steps(tmp_path: Path) -> None:
    model_input = TensorSpec(name="image", shape=(1, 2, 1, 3), layout=Layout.NCHW)
    maps = stored_spec("maps", (1, 1, 3, 2), 0.5, -4)
    contract = Contract(
        inputs=(stored_spec("image", (1, 1, 3, 2), 0.25, 10),),
        outputs=(maps, stored_spec("logits", (1, 2), 0.125, 0)),
    )
    image = np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3)
    taken = []

    def stored(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        taken.append(inputs["image"])
        exact = (inputs["image"].astype(np.float32) - 10) * 0.25
        maps = (exact / 0.5 - 4).round().astype(np.int8)
        return {"maps": maps, "logits": np.array([[8, -3]], np.int8)}

    case = run_case(
        "0",
        LoadedSample(inputs={"image": image}, pixels=None),
        model_inputs=(model_input,),
        contract=contract,
        artifact=stored,
        reference=lambda inputs: {
            "maps": inputs["image"],
            "logits": np.array([[2.0, -0.375]], np.float32),
        },
    )
    write_golden_pack(tmp_path, [case], contract, output_steps={})
    pack = json.loads((tmp_path / "golden" / "golden.json").read_bytes())["cases"][0]
    (entry,) = pack["inputs"]
    assert (entry["dtype"], entry["shape"]) == ("int8", [1, 1, 3, 2])
    assert read_tensor(tmp_path, entry).tolist() == [[[[10, 22], [14, 26], [18, 30]]]]
    assert taken[0].tolist() == read_tensor(tmp_path, entry).tolist()
    own, real, logits, _ = pack["expect"]
    assert (own["dtype"], own["compare"]) == ("int8", {"kind": "lsb", "limit": 5})
    assert read_tensor(tmp_path, own).tolist() == [[[[-4, 2], [-2, 4], [0, 6]]]]
    assert (real["dtype"], real["shape"]) == ("float32", [1, 1, 3, 2])
    assert read_tensor(tmp_path, real).tolist() == [[[[0, 3], [1, 4], [2, 5]]]]
    assert real["compare"] == {"kind": "close", "limit": 2.5}
    # 8 steps of 0.125 from the float model: as far as that two runtimes may be apart
    assert logits["compare"] == {"kind": "lsb", "limit": 8}
