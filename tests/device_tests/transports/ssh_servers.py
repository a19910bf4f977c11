"""Two SSH servers for tests: asyncssh's own in a thread, and OpenSSH's sshd."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final

import asyncssh

THREADS: Final = ThreadPoolExecutor(64)
USER: Final = pwd.getpwuid(os.getuid()).pw_name


class NoSshd(Exception):
    """There is no sshd here, or it does not start; says why."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of a server and of who may log in, in a directory."""

    directory: Path
    host_public: str
    client: Path

    def known_hosts(self, port: int) -> Path:
        path = self.directory / f"known_hosts_{port}"
        path.write_text(f"[127.0.0.1]:{port} {self.host_public}\n", encoding="ascii")
        return path


def new_keys(directory: Path) -> Keys:
    for name in ("host", "client"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(directory / name))
        key.write_public_key(str(directory / f"{name}.pub"))
        (directory / name).chmod(0o600)
    return Keys(
        directory=directory,
        host_public=(directory / "host.pub").read_text(encoding="ascii").strip(),
        client=directory / "client",
    )


@contextmanager
def python_server(keys: Keys) -> Iterator[int]:
    """asyncssh's server, which runs each command in a session of its own; gives the port."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[str(keys.directory / "host")],
            authorized_client_keys=str(keys.directory / "client.pub"),
            process_factory=_serve_command,
            sftp_factory=True,
            encoding=None,
        )

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    try:
        yield server.get_port()
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _serve_command(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """As sshd does it: whether the program has exited is no question of who holds its pipes."""
    assert process.command is not None
    child = subprocess.Popen(
        ["/bin/sh", "-c", process.command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    loop = asyncio.get_running_loop()
    streams = [(child.stdout, process.stdout), (child.stderr, process.stderr)]
    carriers = [asyncio.create_task(_carry(source, target)) for source, target in streams]
    listener = asyncio.create_task(process.stdin.read())
    exited = asyncio.ensure_future(loop.run_in_executor(THREADS, child.wait))
    try:
        waits: set[asyncio.Future[Any]] = {listener, exited}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        child.stdin.close()
        status = await exited
        await asyncio.gather(*carriers)
    finally:
        child.stdin.close()
        listener.cancel()
    with suppress(OSError, asyncssh.Error):
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)


async def _carry(source: IO[bytes] | None, target: asyncssh.SSHWriter[bytes]) -> None:
    assert source is not None
    loop = asyncio.get_running_loop()
    while piece := await loop.run_in_executor(THREADS, os.read, source.fileno(), 1 << 16):
        with suppress(OSError, asyncssh.Error):
            target.write(piece)
            await target.drain()


@contextmanager
def openssh_server(keys: Keys) -> Iterator[int]:
    """OpenSSH's sshd on a port of the loopback, with a configuration of its own.

    Raises:
        NoSshd: There is none, or it may not run here.
    """
    program = _sshd()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        _sshd_command(program, keys, port), stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    heard = []
    try:
        for line in process.stderr:
            heard.append(line.decode(errors="replace"))
            if b"Server listening" in line:
                break
        else:
            message = f"{program} does not start: {' '.join(heard)}"
            raise NoSshd(message)
        Thread(target=process.stderr.read, daemon=True).start()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _sshd() -> Path:
    tools = os.environ.get("EDGESHIP_LAB_TOOLS")
    inside = Path(tools) / "usr/sbin/sshd" if tools else None
    if inside is not None and inside.is_file():
        return inside.resolve()
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        message = "no sshd in EDGESHIP_LAB_TOOLS (`make fixtures`) or on PATH"
        raise NoSshd(message)
    return Path(found)


def _sshd_command(program: Path, keys: Keys, port: int) -> list[str]:
    configuration = keys.directory / "sshd_config"
    configuration.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys.directory}/host\n"
        f"AuthorizedKeysFile {keys.directory}/client.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
        "MaxStartups 200\nLoginGraceTime 20\nSubsystem sftp internal-sftp\n",
        encoding="ascii",
    )
    libraries = ":".join(str(path) for path in program.parents[2].glob("usr/lib/*-linux-gnu"))
    start = ["env", f"LD_LIBRARY_PATH={libraries}"] if libraries else ["env"]
    sshd = [*start, str(program), "-D", "-e", "-f", str(configuration)]
    if os.getuid() != 0:
        return sshd
    # As root it wants a user and a directory of its own; it gets them where nobody else sees them.
    # The shell is a plain one: bash would read a ~/.bashrc, which may take half a second.
    users = keys.directory / "passwd"
    users.write_text(
        f"root:x:0:0::{keys.directory}:/bin/sh\nsshd:x:33:33::/run/sshd:/usr/sbin/nologin\n",
        encoding="ascii",
    )
    script = (
        'mount --bind "$1" /etc/passwd && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd'
        ' && shift && exec "$@"'
    )
    return [
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-c", script, "sh", str(users), *sshd),
    ]
