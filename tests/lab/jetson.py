"""An emulated board that says it is a Jetson; loaded with run_path, as tests are no package."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Final

from edgeship.device_tests.lab.board import LabBoard
from edgeship.device_tests.lab.boot import boot
from edgeship.device_tests.lab.image import LabImage

HERE: Final = Path(__file__).parent
on_board = SimpleNamespace(**run_path(str(HERE / "bundle_board.py")))
kits = SimpleNamespace(**run_path(str(HERE.parent / "exporters/tensorrt/kit/kits.py")))
UPLOADED: Final = "/home/edgeship/kit"
CACHE: Final = "/home/edgeship/engines"
PROGRAMS: Final = "/usr/src/tensorrt/bin"
"""Where NVIDIA's packages put trtexec, and where build_engine.py looks without being told."""
DEVICE_TREE: Final = "/sys/firmware/devicetree/base"
IDENTITY: Final = {
    "compatible": b"nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "model": b"NVIDIA Jetson Orin Nano Developer Kit\0",
}
"""Of a device tree as Linux for Tegra has it: SM 8.7 follows from the SoC."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """How build_engine.py ended on the board."""

    status: int
    events: list[dict[str, Any]]
    story: str

    @property
    def end(self) -> dict[str, Any]:
        assert self.events, self.story
        assert self.events[-1]["event"] == "end", self.events
        return self.events[-1]


@dataclass(frozen=True, kw_only=True)
class Jetson:
    """A board with a kit on it: root prepared it, and a plain user builds."""

    root: Any
    user: Any
    scratch: Path

    def has_trtexec(
        self, version: str = "10.3.0", *, fail: Mapping[str, str] | None = None
    ) -> None:
        """From now on a stand-in answers to trtexec, of this version and with these failures."""
        machine = self.scratch / "machine"
        shutil.rmtree(machine, ignore_errors=True)
        kits.write_machine(machine, Path(UPLOADED), version=version, fail=fail)
        program = machine / "bin/trtexec"
        lines = program.read_text().splitlines(keepends=True)
        program.write_text("".join(["#!/usr/bin/python3\n", *lines[1:]]))
        assert self.root.shell(f"mkdir -p {PROGRAMS}").status == 0
        files = {path.name: path for path in (machine / "bin").iterdir()}
        self.root.connection.put(files, PROGRAMS, deadline_s=on_board.DEADLINE_S)

    def build(self, *options: str) -> Built:
        """Run build_engine.py of the uploaded kit."""
        line = f"python3 {UPLOADED}/build_engine.py {UPLOADED} --cache {CACHE} --duration=1"
        said = self.user.shell(f"{line} {shlex.join(options)}")
        events = [json.loads(line) for line in said.stdout.splitlines()]
        return Built(status=said.status, events=events, story=said.stderr)

    def engines(self) -> str:
        """Digests of everything that serves."""
        found = self.user.shell(f"cd {CACHE} && sha256sum */*.plan */fp16.json */int8.json")
        assert found.status == 0, found
        return str(found.stdout)


@contextmanager
def started(lab: LabImage, board: LabBoard, kit: Path, scratch: Path) -> Iterator[Jetson]:
    """A board whose device tree is that of a Jetson, with a kit and a stand-in that works."""
    with ExitStack() as stack:
        running = stack.enter_context(boot(board, lab))
        root, user = (
            stack.enter_context(on_board.login(running, name)) for name in ("root", "edgeship")
        )
        assert root.shell("mkdir /root/identity").status == 0
        root.connection.put(IDENTITY, "/root/identity", deadline_s=on_board.DEADLINE_S)
        for name in IDENTITY:
            line = f"mount --bind /root/identity/{name} {DEVICE_TREE}/{name}"
            assert root.shell(line).status == 0
        assert user.shell(f"mkdir {UPLOADED}").status == 0
        files = {
            path.relative_to(kit).as_posix(): path for path in kit.rglob("*") if path.is_file()
        }
        user.connection.put(files, UPLOADED, deadline_s=on_board.DEADLINE_S)
        jetson = Jetson(root=root, user=user, scratch=scratch)
        jetson.has_trtexec()
        yield jetson
