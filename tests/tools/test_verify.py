from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeship.errors import IntegrityRefused
from edgeship.tools.verify import verify

made = SimpleNamespace(**run_path(str(Path(__file__).parent / "bundle/made.py")))
Members = list[tuple[tarfile.TarInfo, bytes]]
MODEL = "artifacts/onnx-int8/model.onnx"
MANIFEST = "artifacts/onnx-int8/manifest.json"


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    path: Path = made.make_bundle(tmp_path, made.make_artifact(tmp_path / "artifact")).path
    return path


def rewrite(path: Path, change: Callable[[Members], None]) -> None:
    with tarfile.open(path) as archive:
        members = []
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            members.append((member, file.read()))
    change(members)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))


def replace_content(members: Members, name: str, content: bytes) -> None:
    index = next(i for i, (member, _) in enumerate(members) if member.name.endswith(f"/{name}"))
    members[index] = (members[index][0], content)


def content_of(members: Members, name: str) -> bytes:
    return next(content for member, content in members if member.name.endswith(f"/{name}"))


def with_sums_of(members: Members) -> None:
    """Make SHA256SUMS true again: what someone would do who changes more than damage does."""
    import hashlib

    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {member.name.partition('/')[2]}\n"
        for member, content in members
        if not member.name.endswith("/SHA256SUMS")
    ]
    replace_content(members, "SHA256SUMS", "".join(lines).encode())


def add(members: Members, name: str, *, type: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type = type
    member.linkname = "/etc/passwd" if type != tarfile.REGTYPE else ""
    members.append((member, b""))


def texts(path: Path) -> str:
    return "\n".join(str(problem) for problem in verify(path))


def test_a_bundle_as_it_was_made_has_no_problem(bundled: Path) -> None:
    assert verify(bundled) == []


def test_a_changed_file_is_named_with_both_digests(bundled: Path) -> None:
    rewrite(bundled, lambda members: replace_content(members, MODEL, b"ok 2"))
    assert f"{MODEL}: the file is not the one that was bundled" in texts(bundled)
    assert f"{MODEL}: the file is not the one that its manifest describes" in texts(bundled)


def test_a_changed_byte_anywhere_in_the_files_is_found(bundled: Path) -> None:
    whole = bundled.read_bytes()
    with tarfile.open(bundled) as archive:
        places = [member.offset_data + member.size // 2 for member in archive]
    for place in places:
        bundled.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert verify(bundled), place


def test_an_archive_that_was_cut_anywhere_is_refused(bundled: Path) -> None:
    whole = bundled.read_bytes()
    with tarfile.open(bundled) as archive:
        end = max(member.offset_data + member.size for member in archive)
    for length in range(0, end, 512):
        bundled.write_bytes(whole[:length])
        try:
            assert verify(bundled), length
        except IntegrityRefused:
            continue


def test_a_file_that_no_list_names_is_found(bundled: Path) -> None:
    rewrite(bundled, lambda members: add(members, f"{bundled.stem}/extra.txt"))
    assert "extra.txt: SHA256SUMS does not list it" in texts(bundled)


def test_an_absent_file_is_found(bundled: Path) -> None:
    def drop(members: Members) -> None:
        members[:] = [item for item in members if not item[0].name.endswith("/labels.txt")]

    rewrite(bundled, drop)
    assert "found no such file" in texts(bundled)


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("../outside", tarfile.REGTYPE),
        ("/etc/cron.d/evil", tarfile.REGTYPE),
        ("bright/../../outside", tarfile.REGTYPE),
        ("beside", tarfile.REGTYPE),
        ("other/file", tarfile.REGTYPE),
        ("TOP/link", tarfile.SYMTYPE),
        ("TOP/hard", tarfile.LNKTYPE),
        ("TOP/device", tarfile.CHRTYPE),
        ("TOP/install.sh", tarfile.REGTYPE),
    ],
)
def test_names_and_kinds_that_lead_out_are_found(bundled: Path, name: str, type: bytes) -> None:
    name = name.replace("TOP", bundled.stem)
    rewrite(bundled, lambda members: add(members, name, type=type))
    assert verify(bundled)


def test_a_manifest_whose_sums_were_made_true_again_is_found_by_its_id(bundled: Path) -> None:
    def soften(members: Members) -> None:
        manifest = json.loads(content_of(members, MANIFEST))
        manifest["requires"]["memory_bytes"] = 1
        replace_content(members, MANIFEST, json.dumps(manifest).encode())
        with_sums_of(members)

    rewrite(bundled, soften)
    assert [problem.what for problem in verify(bundled)] == [
        "the manifest was changed after it was sealed"
    ]


def test_facts_that_contradict_the_description_are_found(bundled: Path) -> None:
    def rename(members: Members) -> None:
        facts = content_of(members, "release.txt").replace(b"target raspberry-pi-4", b"target x")
        replace_content(members, "release.txt", facts)
        with_sums_of(members)

    rewrite(bundled, rename)
    assert "target is another one" in texts(bundled)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda value: {**value, "artifacts": None},
        lambda value: {**value, "artifacts": [*value["artifacts"], {"directory": 3}]},
        lambda value: {
            **value,
            "artifacts": [*value["artifacts"], {"directory": 3, "artifact_id": None}],
        },
        lambda value: {**value, "release": ["1"]},
    ],
)
def test_a_description_of_other_values_is_a_problem(
    bundled: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    def describe(members: Members) -> None:
        value = json.loads(content_of(members, "bundle.json"))
        replace_content(members, "bundle.json", json.dumps(change(value)).encode())
        with_sums_of(members)

    rewrite(bundled, describe)
    assert len(texts(bundled).splitlines()) == 1


def test_bytes_behind_the_end_are_found(bundled: Path) -> None:
    bundled.write_bytes(bundled.read_bytes() + bundled.read_bytes())
    assert "behind its end" in texts(bundled)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\0" * 10240, b"x" * 2000])
def test_what_is_no_bundle_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.tar"
    path.write_bytes(content)
    try:
        problems = [str(problem) for problem in verify(path)]
    except IntegrityRefused as error:
        problems = [str(problem) for problem in error.problems]
    assert problems
    assert all("do not install it" in problem for problem in problems)
