"""The SSH transport: any board with an SSH server; its host key is always checked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from edgeship.device_tests.transports.attempts import LoginRefused
from edgeship.device_tests.transports.event_loop import event_loop
from edgeship.device_tests.transports.host_keys import (
    HostKeyWatch,
    host_key_refused,
    known_hosts_of,
)
from edgeship.device_tests.transports.protocol import ConnectionFailed
from edgeship.device_tests.transports.ssh_connection import GRACE_S, SshConnection
from edgeship.device_tests.transports.troubles import deadline_passed
from edgeship.errors import ConfigurationError, Problem


@dataclass(frozen=True, kw_only=True)
class SshTransport:
    """How to reach a board over SSH, with keys only: a password has no place here.

    Attributes:
        host: Name or address.
        user: To log in as.
        port: Of the server.
        key: Private key file; None for the agent and the usual files of ~/.ssh.
        known_hosts: Host keys that are trusted, in the format of OpenSSH; may be absent.
        is_agent_allowed: Whether the agent of SSH_AUTH_SOCK may be asked, too.
        keepalive_s: After so many silent seconds the board is asked whether it is there.
        keepalive_times: So many unanswered questions end the connection.
    """

    host: str
    user: str
    port: int = 22
    key: Path | None = None
    known_hosts: Path = Path("~/.ssh/known_hosts")
    is_agent_allowed: bool = True
    keepalive_s: float = 10.0
    keepalive_times: int = 3

    @property
    def where(self) -> str:
        """See `Transport.where`."""
        return f"ssh {self.user}@{self.host}:{self.port}"

    @contextmanager
    def connect(self, *, deadline_s: float = 30.0) -> Iterator[SshConnection]:
        """See `Transport.connect`.

        Raises:
            HostKeyRefused: The host key is unknown, changed or revoked.
            LoginRefused: No key lets us in.
            ConfigurationError: The key file or known_hosts cannot be read.
        """
        with event_loop() as loop:
            try:
                ssh = loop.finish(self._open(deadline_s), limit_s=deadline_s + GRACE_S)
            except TimeoutError:
                raise deadline_passed(self.where, "connecting", deadline_s=deadline_s) from None
            connection = SshConnection(loop, ssh, self.where)
            try:
                yield connection
            finally:
                with suppress(TimeoutError):
                    loop.finish(connection.close(), limit_s=2 * GRACE_S)

    async def _open(self, deadline_s: float) -> asyncssh.SSHClientConnection:
        known = known_hosts_of(self.known_hosts)
        watch = HostKeyWatch()
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncssh.connect(
                    self.host,
                    self.port,
                    config=None,  # devices.toml says it all; ~/.ssh/config may say otherwise
                    username=self.user,
                    client_keys=() if self.key is None else [str(self.key.expanduser())],
                    ignore_encrypted=self.is_agent_allowed,
                    agent_path=() if self.is_agent_allowed else None,
                    preferred_auth="publickey",
                    known_hosts=known,
                    client_factory=lambda: watch,
                    connect_timeout=None,
                    login_timeout=0,
                    keepalive_interval=self.keepalive_s,
                    keepalive_count_max=self.keepalive_times,
                )
        except TimeoutError:
            raise deadline_passed(self.where, "connecting", deadline_s=deadline_s) from None
        except asyncssh.HostKeyNotVerifiable as error:
            raise host_key_refused(
                self.host, self.port, self.known_hosts, known, watch.shown
            ) from error
        except asyncssh.PermissionDenied as error:
            raise LoginRefused(self._login_problem()) from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise ConfigurationError(self._key_problem(str(error))) from error
        except FileNotFoundError as error:
            if self.key is None or error.filename is None:
                raise self._unreachable(error) from error
            raise ConfigurationError(self._key_problem("there is no such file")) from error
        except (asyncssh.Error, OSError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> ConnectionFailed:
        return ConnectionFailed(
            Problem(
                where=self.where,
                what="the board cannot be reached",
                found=str(error) or type(error).__name__,
                remedy="see whether it is on, in this network, and runs an SSH server",
            )
        )

    def _login_problem(self) -> Problem:
        key = "no key of the agent or ~/.ssh" if self.key is None else f"not {self.key}"
        return Problem(
            where=self.where,
            what="the board lets nobody in with the keys that we have",
            expected="a key of its authorized_keys",
            found=key,
            remedy=f"run `ssh-copy-id -p {self.port} {self.user}@{self.host}`, name the key file, "
            "or give an encrypted one to the agent with `ssh-add`",
        )

    def _key_problem(self, found: str) -> Problem:
        return Problem(
            where=f"{self.where}: key {self.key}",
            what="the key cannot be used",
            found=found,
            remedy="name the private key's file; give an encrypted one to the agent (`ssh-add`)",
        )
