"""Install bundles on emulated boards; loaded with run_path, as tests are no package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

from edgeship.artifact import Artifact, read_artifact, write_manifest
from edgeship.cli import main
from edgeship.device_tests.board_archive import archive_bytes
from edgeship.device_tests.lab.boot import RunningBoard
from edgeship.device_tests.transports.protocol import Connection
from edgeship.device_tests.transports.ssh import SshTransport
from edgeship.errors import ExitCode
from edgeship.targets import load_target
from edgeship.tools.bundle.bundle import bundle
from edgeship.tools.bundle.description import Judged

TARGET: Final = "raspberry-pi-4"
NAME: Final = "bright"
DEADLINE_S: Final = 300.0
"""Of one command. An installation of two artifacts takes 24 s with little else to do (measured)."""
HERE: Final = Path(__file__).parent
installed = SimpleNamespace(**run_path(str(HERE.parent / "tools/bundle/installed.py")))


def bundle_of(project: Path, destination: Path, *only: str, target: str = TARGET) -> Path:
    """What `edgeship bundle` makes of some artifacts of a built project."""
    command = ["bundle", target, "--as", "tar", "--quiet", "--project"]
    command += [str(project / "edgeship.toml"), "--out", str(destination)]
    for name in only:
        command += ["--only", name]
    assert main(command) == ExitCode.OK
    (path,) = destination.iterdir()
    return path


def changed_bundle(
    project: Path,
    destination: Path,
    *,
    note: str = "",
    memory_bytes: int | None = None,
    of: tuple[str, str] = (TARGET, "onnx-int8"),
) -> Path:
    """A bundle of a built artifact that says something else of itself: another release."""
    target, artifact = of
    directory = destination / "artifact"
    shutil.copytree(project / "build" / target / artifact, directory)
    manifest = read_artifact(directory).manifest
    needs = manifest.requires
    if memory_bytes is not None:
        needs = replace(needs, memory_bytes=memory_bytes)
    manifest = replace(manifest, notes=(*manifest.notes, note), requires=needs)
    write_manifest(directory, manifest)
    made = bundle(
        [Judged(artifact=Artifact(directory=directory, manifest=manifest), judgements=())],
        name=NAME,
        target=load_target(target),
        destination=destination,
        board_archive=archive_bytes(),
    )
    return made.path


def release_of(path: Path) -> str:
    """The id in the name of a bundle."""
    return path.stem.rpartition("-")[2]


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command on a board ended, and what it wrote."""

    status: int | None
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """A board with somebody logged in."""

    connection: Connection

    def shell(self, line: str) -> Said:
        """Run a line of shell."""
        ended = self.connection.run(["sh", "-c", line], deadline_s=DEADLINE_S)
        return Said(status=ended.status, stdout=ended.stdout.decode(), stderr=ended.stderr.decode())

    def unpack(self, path: Path, directory: str) -> str:
        """Copy a bundle and unpack it below `directory`; where its install.sh is."""
        assert self.shell(f"mkdir -p {directory}").status == 0
        self.connection.put({path.name: path}, directory, deadline_s=DEADLINE_S)
        done = self.shell(f"cd {directory} && tar -xf {path.name} && sync && pwd")
        assert done.status == 0, done
        return f"{done.stdout.strip()}/{path.stem}"

    def current(self, prefix: str) -> str | None:
        """The release that is current and whole; see `installed.py`."""

        def shell(command: str) -> tuple[int, str]:
            said = self.shell(command)
            assert said.status is not None, said
            return said.status, said.stdout + said.stderr

        release: str | None = installed.current_release(shell, prefix)
        return release

    def self_test(self, prefix: str) -> None:
        """Every artifact of the current release, with the board's own runtime."""
        said = self.shell(
            f"cd {prefix}/current/artifacts && "
            "for name in *; do python3 ../edgeship-board.pyz self-test $name || exit 1; done"
        )
        assert said.status == 0, said
        assert '"outcome": "ok"' in said.stdout.splitlines()[-1]


@contextmanager
def login(running: RunningBoard, user: str) -> Iterator[Site]:
    """Log in to a board that is on."""
    address = running.address(user)
    transport = SshTransport(
        host=address.host,
        port=address.port,
        user=address.user,
        key=address.key,
        known_hosts=address.known_hosts,
        is_agent_allowed=False,
    )
    with transport.connect(deadline_s=DEADLINE_S) as connection:
        yield Site(connection=connection)
