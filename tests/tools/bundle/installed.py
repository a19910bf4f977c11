"""Whether an installation is whole, asked through a shell command: here, or on a board."""

from __future__ import annotations

import shlex
from collections.abc import Callable

Shell = Callable[[str], tuple[int, str]]
"""Runs a command string, and gives its exit status and stdout."""

_CHECK = """\
bad() {{ echo "$1"; exit 1; }}
cd {prefix} 2>/dev/null && [ -L current ] || {{ echo nothing; exit 0; }}
link=$(readlink current)
case $link in releases/.*) bad "half: $link" ;; releases/*) ;; *) bad "strange: $link" ;; esac
cd "$link" || bad "current leads nowhere: $link"
[ "$(wc -l <SHA256SUMS)" -eq "$(sed -n 's/^files //p' release.txt)" ] || bad "a file is missing"
sha256sum -c SHA256SUMS >/dev/null || bad "a file is damaged"
sed -n 's/^release //p' release.txt
"""


def check_command(prefix: str) -> str:
    """A POSIX command: exits 0 and prints the release that is current and whole, or "nothing".

    It exits 1 and says why where `current` leads nowhere, or to a release that is not whole.
    """
    return _CHECK.format(prefix=shlex.quote(prefix))


def current_release(shell: Shell, prefix: str) -> str | None:
    """The release that is current and whole; None where none was ever made current.

    Raises:
        AssertionError: Half an installation, which must never be.
    """
    status, output = shell(check_command(prefix))
    assert status == 0, output
    lines = output.split()
    assert len(lines) == 1, output
    return None if lines == ["nothing"] else lines[0]
