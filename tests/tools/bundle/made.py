"""Small artifacts and bundles; loaded with run_path, as tests are no package."""

from __future__ import annotations

import hashlib
import io
import platform
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeship.artifact import (
    Artifact,
    Manifest,
    Requirements,
    RuntimeNeed,
    describe_file,
    write_manifest,
)
from edgeship.contract import Contract
from edgeship.evidence import Evidence
from edgeship.targets import Arch, Target, load_target
from edgeship.tools.bundle.bundle import Bundle, bundle
from edgeship.tools.bundle.description import Judged
from edgeship.tools.bundle.layout import BUILDER_NAME
from edgeship.vocabulary import Format, Metric, Place, Role, Rung

STAND_IN: Final = """\
import json, pathlib, signal, sys

def end(outcome):
    print(json.dumps({"event": "end", "outcome": outcome}))
    sys.stderr.write("self-test: %s\\n" % outcome)
    sys.exit(outcome != "ok")

assert sys.argv[1] == "self-test"
artifact = pathlib.Path(sys.argv[2])
text = (artifact / "model.onnx").read_text()
if text.startswith("silent"):
    sys.exit(0)
if text.startswith("endless"):
    signal.pause()
golden = (artifact / "golden/golden.json").read_text()
end(text.split()[0] if golden == "golden of " + text else "damaged")
"""
"""For the board's program: the model's first word is the outcome."""

QUICK_PYTHON: Final = """\
#!/bin/sh
case ${1:-} in */build_engine.py)
    key=$(sed -n 's/.*"artifact_id": *"\\([0-9a-f]\\{16\\}\\).*/\\1/p' "$2/manifest.json")-trt1-sm1
    [ "$5" = --check ] || { mkdir -p "$4/$key" && echo engine >"$4/$key/a.plan"; }
    [ ! -f "$4/$key/a.plan" ] || echo '{"event": "end", "engine": "'"$key"'/a.plan"}'
    exit 0 ;;
esac
[ "${6:-}" = self-test ] || exit 0
read -r outcome _ <"$7/model.onnx" || [ -n "$outcome" ]
[ "$outcome" != silent ] || exit 0
echo '{"event": "end", "outcome": "'"$outcome"'"}'
[ "$outcome" = ok ]
"""
"""In place of Python, where what is tested is what install.sh makes of the outcome, or engine."""

EVIDENCE: Final = Evidence(
    rung=Rung.MATCHES,
    place=Place.EMULATED,
    stand_in=False,
    where={"cpu": "Cortex-A72", "runtime": "onnxruntime", "version": "1.31.1"},
    metrics={Metric.TOP1: 0.81},
    samples=2000,
    ci95=(0.79, 0.83),
    data_sha256="3" * 64,
    command="edgeship test",
    at="2026-11-22T10:00:00Z",
)


def stand_in() -> bytes:
    """A zip that Python runs, in place of the real one."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), STAND_IN)
    return content.getvalue()


def this_machine() -> Target:
    """A target whose architecture is that of the machine of the test."""
    row = load_target("raspberry-pi-4")
    return replace(row, cpu=replace(row.cpu, arch=Arch(platform.machine())))


def make_artifact(
    directory: Path,
    text: str = "ok 1",
    *,
    precision: str = "int8",
    runtimes: Sequence[str] = ("litert", "onnxruntime"),
    labels: str = "labels.txt",
    memory_bytes: int = 1000,
    is_kit: bool = False,
) -> Artifact:
    """An artifact as a build leaves it, whose model is a text; a kit has an empty builder."""
    (directory / "golden").mkdir(parents=True)
    (directory / "model.onnx").write_text(text)
    (directory / "golden/golden.json").write_text(f"golden of {text}")
    (directory / labels).write_text("bright\ndark\n")
    roles = {
        "model.onnx": Role.MODEL,
        labels: Role.LABELS,
        "golden/golden.json": Role.GOLDEN,
    }
    if is_kit:
        (directory / BUILDER_NAME).write_text("")
        roles[BUILDER_NAME] = Role.PROGRAM
    manifest = Manifest(
        edgeship="0.1.0",
        target="raspberry-pi-4",
        format=Format.TENSORRT if is_kit else Format.ONNX,
        precision=precision,
        files=tuple(describe_file(directory, name, role) for name, role in roles.items()),
        source={"checkpoint_sha256": hashlib.sha256(text.encode()).hexdigest()},
        tools={},
        contract=Contract(inputs=(), outputs=()),
        requires=Requirements(
            any_of=tuple(RuntimeNeed(runtime=name, min="1.0") for name in runtimes),
            memory_bytes=memory_bytes,
        ),
        evidence=(EVIDENCE,),
    )
    write_manifest(directory, manifest)
    return Artifact(directory=directory, manifest=manifest)


def make_bundle(
    directory: Path,
    *artifacts: Artifact,
    name: str = "bright",
    board_archive: bytes | None = None,
) -> Bundle:
    """A bundle of artifacts that all pass, for this machine."""
    return bundle(
        [Judged(artifact=artifact, judgements=()) for artifact in artifacts],
        name=name,
        target=this_machine(),
        destination=directory,
        board_archive=board_archive or stand_in(),
    )
