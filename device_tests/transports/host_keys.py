"""Host keys: whether the board is the one that it was, and what to do where nobody knows."""

from __future__ import annotations

from pathlib import Path

import asyncssh

from edgeship.device_tests.transports.protocol import HostKeyRefused
from edgeship.errors import ConfigurationError, Problem

_SSH_PORT = 22  # RFC 4253, section 4.2


class HostKeyWatch(asyncssh.SSHClient):
    """Remembers the host key that a server showed and that nothing vouches for.

    Attributes:
        shown: That key; None where there was none, or one that is known.
    """

    def __init__(self) -> None:
        self.shown: asyncssh.SSHKey | None = None

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Called for a key that known_hosts does not have; never trusts it."""
        del host, addr, port
        self.shown = key
        return False


def known_hosts_of(path: Path) -> asyncssh.SSHKnownHosts:
    """The host keys of a file; none at all where there is no file.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    try:
        return asyncssh.import_known_hosts(path.expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return asyncssh.import_known_hosts("")
    except (OSError, ValueError) as error:
        problem = Problem(
            where=str(path),
            what="the known host keys cannot be read",
            found=str(error),
            remedy="mend the file; `ssh-keygen -lf` names the line",
        )
        raise ConfigurationError(problem) from error


def host_key_refused(
    host: str,
    port: int,
    path: Path,
    known: asyncssh.SSHKnownHosts,
    shown: asyncssh.SSHKey | None,
) -> HostKeyRefused:
    """Why a host key is refused: unknown, changed, or revoked (where none was `shown`).

    The remedy holds the line to add, which is worth as much as the comparison before it.
    """
    name = host if port == _SSH_PORT else f"[{host}]:{port}"
    if shown is None:
        return HostKeyRefused(
            Problem(
                where=name,
                what=f"the host key is marked as revoked in {path}",
                remedy="do not use this board until you know why",
            )
        )
    kind, base64 = shown.export_public_key("openssh").decode("ascii").split()[:2]
    fingerprint = f"{kind} {shown.get_fingerprint()}"
    trusted = known.match(host, "", port)[0]
    if trusted:
        return HostKeyRefused(
            Problem(
                where=name,
                what="the host key has changed: another board, a new system on it, or someone "
                "in between",
                expected=" or ".join(sorted(key.get_fingerprint() for key in trusted)),
                found=fingerprint,
                remedy=f"find out which; if it is right, remove the old line (`ssh-keygen -R "
                f"'{name}' -f {path}`) and add `{name} {kind} {base64}`",
            )
        )
    return HostKeyRefused(
        Problem(
            where=name,
            what="the host key is not known",
            found=fingerprint,
            remedy="compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` says on "
            f"the board, then add `{name} {kind} {base64}` to {path}",
        )
    )
