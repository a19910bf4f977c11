"""Boards for transport tests: this machine, behind servers that speak SSH."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

pytest.importorskip("asyncssh")
servers = SimpleNamespace(**run_path(str(Path(__file__).with_name("ssh_servers.py"))))


@pytest.fixture(scope="session")
def ssh_keys(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    keys: SimpleNamespace = servers.new_keys(tmp_path_factory.mktemp("keys"))
    return keys


@pytest.fixture(scope="session")
def python_ssh_port(ssh_keys: SimpleNamespace) -> Iterator[int]:
    with servers.python_server(ssh_keys) as port:
        yield port


@pytest.fixture(scope="session")
def sshd_port(ssh_keys: SimpleNamespace) -> Iterator[int]:
    try:
        with servers.openssh_server(ssh_keys) as port:
            yield port
    except servers.NoSshd as error:
        pytest.skip(f"NOT TESTED over a real sshd: {error}")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Where runs have their directories."""
    path = tmp_path / f"base-{secrets.token_hex(2)}"
    path.mkdir()
    return path


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections (the kernel does) and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
