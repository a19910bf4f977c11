"""Keys: who may log in to an emulated board, and which board it really is."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeship.errors import Problem, RequirementMissing


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """Two ed25519 key pairs, in OpenSSH's formats; made on this machine for one image."""

    client_private: bytes = field(repr=False)
    client_public: str
    host_private: bytes = field(repr=False)
    host_public: str


def new_key_pair() -> KeyPair:
    """Fresh keys for the client and the board.

    Raises:
        RequirementMissing: asyncssh is not installed.
    """
    try:
        import asyncssh
    except ImportError as error:
        problem = Problem(
            where="lab",
            what="asyncssh is not installed, which reaches boards over SSH",
            remedy="`pip install 'edgeship[devices]'`",
        )
        raise RequirementMissing(problem) from error
    client, host = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    return KeyPair(
        client_private=client.export_private_key(),
        client_public=client.export_public_key().decode(),
        host_private=host.export_private_key(),
        host_public=host.export_public_key().decode(),
    )
