"""A leash for commands on a board: they end with their stdin, and never outlive their deadline.

sshd without a terminal lets a program live on when its connection is gone, and a peer that is cut
off without a word is noticed by nobody. So each command carries its own end with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

_SPARE_S: Final = 5
"""A board ends a command by itself only after whoever waits for it had its chance to."""

# "kill -KILL -- -N" is an error in dash 0.5.12, and busybox 1.35 complains about its "--"
# (measured): the group stands right behind the signal. The two watchers belong to the group of
# the command and die with it, so that its number cannot become someone else's meanwhile. They are
# orphans (the outer parentheses end at once), so that the command never sees them as children,
# and hold no end of its stdout.
_LEASH: Final = """\
exec 3<&0
(
  { sleep "$2"; kill -KILL -$$; } &
  { cat <&3; kill -KILL -$$; } &
) </dev/null >/dev/null 2>&1
exec 3<&-
shift 2
exec "$@"
"""

# OpenSSH makes each command the leader of a group, dropbear does not (measured with 9.2 and
# 2022.83). Without /proc we take it for one: there, `LocalTransport` has made it so.
_START: Final = """\
read -r _ _ _ _ group _ 2>/dev/null </proc/$$/stat || group=$$
if [ "$group" = $$ ]; then eval "$1"; fi
exec setsid sh -c "$1" sh "$@"
"""


def leashed_command(command: Sequence[str], *, deadline_s: float) -> list[str]:
    """A command that runs `command` in its own place: same process, stdin, output and end.

    It needs sh (dash and busybox do), sleep and cat, and setsid where it is not made the leader of
    a process group. Where its stdin ends, or 5 s after the deadline, the whole group is killed.
    A program that is not found ends with 127, one that may not be run with 126, as in any shell.
    """
    seconds = math.ceil(deadline_s) + _SPARE_S
    return ["sh", "-c", _START, "sh", _LEASH, str(seconds), *command]


def with_environment(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command with variables set by env(1), which sshd has no need to accept."""
    assignments = [f"{name}={value}" for name, value in environment.items()]
    return ["env", *assignments, *command] if assignments else list(command)
