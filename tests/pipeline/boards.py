"""A project whose artifacts are made by hand, and boards that say what a test wants them to say."""

from __future__ import annotations

import importlib.resources
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

from edgeship.artifact import Artifact, read_artifact, write_manifest
from edgeship.device_tests.devices import Device
from edgeship.device_tests.session import Devices
from edgeship.device_tests.transports.local import LocalTransport
from edgeship.device_tests.transports.protocol import (
    NO_ENVIRONMENT,
    Connection,
    ConnectionFailed,
    Ended,
)
from edgeship.errors import Problem
from edgeship.pipeline.plan import Plan, make_plan
from edgeship.pipeline.workspace import open_workspace
from edgeship.project_file import read_project

packs = SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "device_tests/board/packs.py")))
PRECISIONS: Final = ("int8", "fp16", "fp32")
PYTHON: Final = '{"event": "python", "version": "3.11.2", "numpy": "1.26.4"}'
RUNTIME: Final = (
    '{"event": "runtime", "name": "onnxruntime", "version": "1.31.1", "kind": "python"}'
)
START: Final = '{"event": "start", "package": "onnxruntime", "version": "1.31.1"}'
CASE: Final = (
    '{"event": "case", "case": "a", "name": "y", "of": "float-model", "kind": "close", '
    '"difference": 0.0, "limit": 1.0, "is_ok": true, "message": null}'
)
OK: Final = '{"event": "end", "outcome": "ok", "message": null}'
CRASH: Final = '{"event": "end", "outcome": "illegal-instruction", "message": "SIGILL"}'


def write_project(directory: Path, *targets: str, arch: str | None = None) -> Plan:
    """The plan of a project with these targets, all of whose artifacts are there."""
    catalogue = importlib.resources.files("edgeship.targets") / "catalogue"
    row = (catalogue / "raspberry-pi-4.toml").read_text()
    row = row.replace('arch = "aarch64"', f'arch = "{arch or platform.machine()}"')
    with (directory / "edgeship.toml").open("a") as file:
        for name in targets:
            own = row.replace('name = "raspberry-pi-4"', f'name = "{name}"')
            (directory / f"{name}.toml").write_text(own)
            file.write(f'[targets.{name}]\nfile = "{name}.toml"\nformats = ["onnx"]\n')
            file.write(f"[targets.{name}.onnx]\nprecisions = {json.dumps(PRECISIONS)}\n")
    plan = make_plan(read_project(directory / "edgeship.toml"), targets)
    checkpoint = open_workspace(plan.project).checkpoint_sha256()
    for name in targets:
        for precision in PRECISIONS:
            path = directory / f"build/{name}/onnx-{precision}"
            made: Artifact = packs.image_artifact(path, packs.image_spec(), count=1)
            manifest = replace(
                made.manifest,
                target=name,
                precision=precision,
                source={"checkpoint_sha256": checkpoint},
            )
            write_manifest(path, manifest)
    return plan


def evidence_of(directory: Path, precision: str, target: str = "here") -> list[str]:
    """The commands that left evidence in a manifest."""
    artifact = read_artifact(directory / f"build/{target}/onnx-{precision}")
    return [evidence.command for evidence in artifact.manifest.evidence]


def write_python(directory: Path, says: Mapping[str, str], *, runtimes: str = RUNTIME) -> Path:
    """What a board has for Python: prints for each precision the lines that it is given.

    A word in the place of lines is a shell command.
    """
    cases = []
    for precision in PRECISIONS:
        said = says.get(precision, f"{START}\n{CASE}\n{OK}")
        command = f"cat <<'END'\n{said}\nEND" if said.startswith("{") else said
        cases.append(f"*-{precision}-*)\n{command}\n;;")
    path = directory / "python"
    described = f"{PYTHON}\n{runtimes}\n{OK}"
    path.write_text(
        f"#!/bin/sh\nif [ \"$2\" = describe ]; then cat <<'END'\n{described}\nEND\nexit\nfi\n"
        f'case "$3" in\n{chr(10).join(cases)}\nesac\n'
    )
    path.chmod(0o755)
    return path


Breaks = Callable[[Sequence[str]], bool]


@dataclass(frozen=True, kw_only=True)
class FakeDevice(Device):
    """This machine, over a connection that is lost where a command `breaks` it, and for good."""

    breaks: Breaks = field(default=lambda _: False)
    is_off: bool = False

    def transport(self) -> FakeTransport:
        return FakeTransport(self)


class FakeTransport:
    where = "a board of the test"

    def __init__(self, device: FakeDevice) -> None:
        self._breaks = device.breaks
        self.is_lost = device.is_off

    @contextmanager
    def connect(self, *, deadline_s: float = 30.0) -> Iterator[Connection]:
        self.require()
        with LocalTransport().connect(deadline_s=deadline_s) as connection:
            yield FakeConnection(self, connection)

    def require(self, command: Sequence[str] = ()) -> None:
        self.is_lost = self.is_lost or self._breaks(command)
        if self.is_lost:
            raise ConnectionFailed(
                Problem(where=self.where, what="nobody answers", remedy="look at its power")
            )


class FakeConnection:
    def __init__(self, transport: FakeTransport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        environment: Mapping[str, str] = NO_ENVIRONMENT,
        on_line: Callable[[str], None] | None = None,
    ) -> Ended:
        self._transport.require(command)
        return self._connection.run(
            command, deadline_s=deadline_s, environment=environment, on_line=on_line
        )

    def put(self, files: Mapping[str, Path | bytes], directory: str, *, deadline_s: float) -> None:
        self._transport.require()
        self._connection.put(files, directory, deadline_s=deadline_s)

    def read(self, path: str, *, deadline_s: float) -> bytes:
        self._transport.require()
        return self._connection.read(path, deadline_s=deadline_s)


def devices(*known: Device) -> Devices:
    return Devices(known={device.name: device for device in known}, where="devices.toml")
