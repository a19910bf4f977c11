from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeship.artifact import (
    MANIFEST_NAME,
    Artifact,
    ArtifactFile,
    Manifest,
    Requirements,
    RuntimeNeed,
    describe_file,
    read_artifact,
    write_manifest,
)
from edgeship.contract import Contract, Preprocess, TensorSpec
from edgeship.errors import ExitCode, IntegrityRefused
from edgeship.evidence import Evidence
from edgeship.vocabulary import Format, Layout, Metric, Place, Role, Rung

SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=6,
)
FINITE_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=6,
)
SPECS = st.builds(
    TensorSpec,
    name=TEXT,
    shape=st.lists(st.integers(1, 512), max_size=4).map(tuple),
    scale=st.none() | NUMBERS,
    zero_point=st.none() | st.integers(-128, 127),
    labels=st.none() | TEXT,
)
EVIDENCE = st.builds(
    Evidence,
    rung=st.sampled_from(Rung),
    place=st.sampled_from(Place),
    stand_in=st.booleans(),
    where=st.dictionaries(TEXT, TEXT, max_size=3),
    metrics=st.dictionaries(st.sampled_from(Metric), NUMBERS, max_size=3),
    samples=st.integers(0, 10**6),
    ci95=st.none() | st.tuples(NUMBERS, NUMBERS),
    data_sha256=SHA256,
    command=TEXT,
    at=TEXT,
)
MANIFESTS = st.builds(
    Manifest,
    edgeship=TEXT,
    target=TEXT,
    format=st.sampled_from(Format),
    precision=TEXT,
    files=st.lists(
        st.builds(
            ArtifactFile,
            name=st.sampled_from(["model.onnx", "golden/golden.json", "labels.txt", "a..b"]),
            role=st.sampled_from(Role),
            bytes=st.integers(0, 2**40),
            sha256=SHA256,
        ),
        max_size=3,
    ).map(tuple),
    source=st.dictionaries(TEXT, FINITE_JSON, max_size=3),
    tools=st.dictionaries(TEXT, TEXT, max_size=3),
    contract=st.builds(
        Contract,
        inputs=st.lists(SPECS, max_size=2).map(tuple),
        outputs=st.lists(SPECS, max_size=2).map(tuple),
    ),
    requires=st.builds(
        Requirements,
        any_of=st.lists(st.builds(RuntimeNeed, runtime=TEXT, min=TEXT), max_size=2).map(tuple),
        isa=st.lists(TEXT, max_size=2).map(tuple),
        memory_bytes=st.none() | st.integers(0, 2**40),
    ),
    notes=st.lists(TEXT, max_size=2).map(tuple),
    evidence=st.lists(EVIDENCE, max_size=2).map(tuple),
)

IMAGE = TensorSpec(
    name="image",
    shape=(1, 32, 32, 3),
    dtype="int8",
    layout=Layout.NHWC,
    scale=0.0272,
    zero_point=0,
    preprocess=Preprocess(size=(32, 32)),
)
LOGITS = TensorSpec(name="logits", shape=(1, 10), labels="labels.txt")
MODEL = ArtifactFile(name="model.tflite", role=Role.MODEL, bytes=5, sha256="1" * 64)
LABELS = ArtifactFile(name="labels.txt", role=Role.LABELS, bytes=7, sha256="2" * 64)
REQUIRES = Requirements(
    any_of=(RuntimeNeed(runtime="litert", min="2.0"),), isa=("dotprod",), memory_bytes=4_000_000
)
MATCHES = Evidence(
    rung=Rung.MATCHES,
    place=Place.HOST,
    stand_in=False,
    where={"cpu": "some"},
    metrics={Metric.TOP1: 0.8},
    samples=2000,
    ci95=(0.79, 0.83),
    data_sha256="3" * 64,
    command="edgeship build",
    at="2026-11-22T10:00:00Z",
)
MANIFEST = Manifest(
    edgeship="0.1.0",
    target="raspberry-pi-4",
    format=Format.TFLITE,
    precision="int8",
    files=(MODEL, LABELS),
    source={"checkpoint_sha256": "4" * 64, "recipe": []},
    tools={"torch": "2.13.0", "onnx": "1.23.0"},
    contract=Contract(inputs=(IMAGE,), outputs=(LOGITS,)),
    requires=REQUIRES,
    notes=("STRIDED_SLICE runs outside XNNPACK",),
    evidence=(MATCHES,),
)


def _with_input(spec: TensorSpec) -> Contract:
    return replace(MANIFEST.contract, inputs=(spec,))


OTHERS: dict[str, tuple[object, ...]] = {
    "edgeship": ("0.1.1",),
    "target": ("raspberry-pi-5",),
    "format": (Format.ONNX,),
    "precision": ("fp32",),
    "files": (
        (),
        (LABELS, MODEL),
        (replace(MODEL, name="other.tflite"), LABELS),
        (replace(MODEL, role=Role.GOLDEN), LABELS),
        (replace(MODEL, bytes=6), LABELS),
        (replace(MODEL, sha256="5" * 64), LABELS),
    ),
    "source": ({}, {"checkpoint_sha256": "4" * 64, "recipe": ["rule"]}),
    "tools": ({}, {"torch": "2.13.1", "onnx": "1.23.0"}),
    "contract": (
        _with_input(replace(IMAGE, name="picture")),
        _with_input(replace(IMAGE, shape=(1, 32, 32, 1))),
        _with_input(replace(IMAGE, dtype="uint8")),
        _with_input(replace(IMAGE, layout=None)),
        _with_input(replace(IMAGE, scale=0.0273)),
        _with_input(replace(IMAGE, zero_point=1)),
        _with_input(replace(IMAGE, preprocess=Preprocess(size=(32, 32), mean=(0.5, 0.5, 0.5)))),
        _with_input(replace(IMAGE, labels="labels.txt")),
        Contract(inputs=(LOGITS,), outputs=(IMAGE,)),
    ),
    "requires": (
        replace(REQUIRES, any_of=(RuntimeNeed(runtime="litert", min="2.1"),)),
        replace(REQUIRES, isa=()),
        replace(REQUIRES, memory_bytes=None),
    ),
    "notes": ((), ("another",)),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OTHERS.items() for value in values]
)
def test_artifact_id_is_changed_by_any_field_but_the_evidence(name: str, value: object) -> None:
    changed = replace(MANIFEST, **{name: value})  # type: ignore[arg-type]  # a field by its name
    assert changed.artifact_id != MANIFEST.artifact_id


def test_every_field_but_the_evidence_was_changed_above() -> None:
    assert set(OTHERS) == {field.name for field in fields(Manifest)} - {"evidence"}


@given(MANIFESTS, st.lists(EVIDENCE, max_size=2).map(tuple))
@settings(deadline=None, max_examples=50)
def test_artifact_id_does_not_depend_on_the_evidence(
    manifest: Manifest, evidence: tuple[Evidence, ...]
) -> None:
    assert replace(manifest, evidence=evidence).artifact_id == manifest.artifact_id


@given(MANIFESTS)
@settings(deadline=None, max_examples=50)
def test_artifact_id_does_not_depend_on_the_order_of_keys(manifest: Manifest) -> None:
    reordered = replace(
        manifest,
        source={key: manifest.source[key] for key in reversed(list(manifest.source))},
        tools={key: manifest.tools[key] for key in reversed(list(manifest.tools))},
    )
    assert reordered.artifact_id == manifest.artifact_id


@given(MANIFESTS)
@settings(deadline=None, max_examples=50)
def test_artifact_id_can_be_recomputed_from_the_json_alone(manifest: Manifest) -> None:
    value = json.loads(json.dumps(manifest.to_json()))
    found = value.pop("artifact_id")
    del value["evidence"]
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert found == hashlib.sha256(text.encode()).hexdigest()


@given(MANIFESTS)
@settings(deadline=None, max_examples=50)
def test_manifest_survives_the_disk(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest
) -> None:
    directory = tmp_path_factory.getbasetemp()
    write_manifest(directory, manifest)
    assert read_artifact(directory) == Artifact(directory=directory, manifest=manifest)


def test_same_manifest_is_same_bytes(tmp_path: Path) -> None:
    write_manifest(tmp_path / "one", MANIFEST)
    write_manifest(tmp_path / "other", copy.deepcopy(MANIFEST))
    one, other = (tmp_path / name / MANIFEST_NAME for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes().endswith(b"}\n")


def test_size_is_that_of_the_model_files() -> None:
    second = replace(MODEL, name="more.bin", bytes=20)
    assert replace(MANIFEST, files=(MODEL, LABELS, second)).size_bytes == 25


def _refusal(directory: Path) -> str:
    with pytest.raises(IntegrityRefused) as caught:
        read_artifact(directory)
    (problem,) = caught.value.problems
    assert caught.value.exit_code is ExitCode.INTEGRITY
    assert problem.where.startswith(str(directory / MANIFEST_NAME))
    return problem.what


def test_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path) == "this is no manifest that can be read"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"7", b"{}", b'{"schema": 1}', b"\xff", b"[" * 100_000],
    ids=["empty", "cut", "list", "null", "number", "object", "schema", "not-utf8", "nested"],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    assert _refusal(tmp_path) == "this is no manifest that can be read"


def _write_changed(directory: Path, *keys: str | int, value: object) -> None:
    """MANIFEST with one value in it replaced, the artifact_id left as it was."""
    root = json.loads(json.dumps(MANIFEST.to_json()))
    below = root
    for key in keys[:-1]:
        below = below[key]
    below[keys[-1]] = value
    (directory / MANIFEST_NAME).write_text(json.dumps(root))


def test_manifest_of_another_schema_is_refused(tmp_path: Path) -> None:
    _write_changed(tmp_path, "schema", value=2)
    assert _refusal(tmp_path) == "this is no manifest that can be read"


def test_manifest_changed_after_it_was_sealed_is_refused(tmp_path: Path) -> None:
    _write_changed(tmp_path, "contract", "inputs", 0, "scale", value=0.03)
    assert _refusal(tmp_path) == "the manifest was changed after it was sealed"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_values_that_json_cannot_carry_are_refused(tmp_path: Path, value: object) -> None:
    _write_changed(tmp_path, "contract", "inputs", 0, "scale", value=value)
    assert _refusal(tmp_path) == "this is no manifest that can be read"


@pytest.mark.parametrize("name", ["/etc/passwd", "../model", "a/../../b", "..", "", ".", 7])
def test_file_name_that_leads_out_of_the_artifact_is_refused(tmp_path: Path, name: object) -> None:
    _write_changed(tmp_path, "files", 0, "name", value=name)
    assert _refusal(tmp_path) == "this is no manifest that can be read"


def _paths(value: object, *above: str | int) -> list[tuple[str | int, ...]]:
    """Keys of every value in a JSON value."""
    if isinstance(value, dict):
        below = [path for key in value for path in _paths(value[key], *above, key)]
    elif isinstance(value, list):
        below = [path for key, item in enumerate(value) for path in _paths(item, *above, key)]
    else:
        below = []
    return [above, *below] if above else below


@given(st.sampled_from(_paths(MANIFEST.to_json())), JSON)
@settings(deadline=None, max_examples=50)
def test_any_other_value_anywhere_is_refused_or_still_the_same_artifact(
    tmp_path_factory: pytest.TempPathFactory, path: tuple[str | int, ...], value: object
) -> None:
    directory = tmp_path_factory.getbasetemp()
    _write_changed(directory, *path, value=value)
    try:
        artifact = read_artifact(directory)
    except IntegrityRefused:
        return
    assert artifact.manifest.artifact_id == MANIFEST.artifact_id


def _seal(directory: Path) -> Artifact:
    (directory / "golden").mkdir()
    (directory / "model.tflite").write_bytes(b"model")
    (directory / "golden" / "golden.json").write_bytes(b"{}")
    files = (
        describe_file(directory, "model.tflite", Role.MODEL),
        describe_file(directory, "golden/golden.json", Role.GOLDEN),
    )
    artifact = Artifact(directory=directory, manifest=replace(MANIFEST, files=files))
    write_manifest(directory, artifact.manifest)
    return artifact


def test_described_file_has_its_size_and_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"model")
    assert describe_file(tmp_path, "file", Role.MODEL) == ArtifactFile(
        name="file", role=Role.MODEL, bytes=5, sha256=hashlib.sha256(b"model").hexdigest()
    )


def test_whole_artifact_has_no_damaged_files(tmp_path: Path) -> None:
    assert _seal(tmp_path).damaged_files() == []


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    artifact = _seal(tmp_path)
    (tmp_path / "model.tflite").write_bytes(b"nodel")
    (tmp_path / "golden" / "golden.json").unlink()
    changed, absent = artifact.damaged_files()
    assert changed.where == str(tmp_path / "model.tflite")
    assert changed.found == hashlib.sha256(b"nodel").hexdigest()
    assert absent.where == str(tmp_path / "golden" / "golden.json")
    assert absent.found == "no such file"


def test_new_evidence_replaces_the_old_and_leaves_the_artifact_the_same(tmp_path: Path) -> None:
    before = _seal(tmp_path)
    timed = replace(MATCHES, rung=Rung.TIMED)
    after = before.with_evidence((MATCHES, timed))
    assert read_artifact(tmp_path) == after
    assert after.manifest.evidence == (MATCHES, timed)
    assert after.manifest.artifact_id == before.manifest.artifact_id
    assert after.damaged_files() == []
    assert sorted(os.listdir(tmp_path)) == ["golden", MANIFEST_NAME, "model.tflite"]  # noqa: PTH208


def test_evidence_that_cannot_be_written_leaves_the_old_manifest(tmp_path: Path) -> None:
    artifact = _seal(tmp_path)
    nothing = replace(MATCHES, metrics={Metric.TOP1: float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifact.with_evidence((nothing,))
    assert read_artifact(tmp_path) == artifact
