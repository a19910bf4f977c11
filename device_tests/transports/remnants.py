"""Remnants of runs on a board: their directories and processes; a survey, and how they go.

The scripts are for any POSIX sh, with the tools that busybox has. Each takes the directory in
which runs have theirs, and names below it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeship.device_tests.transports.lease import Lease
from edgeship.device_tests.transports.output import last_line
from edgeship.device_tests.transports.protocol import Connection
from edgeship.device_tests.transports.troubles import refused

MARK: Final = "EDGESHIP_RUN"
"""Environment variable by which the processes of a run are found, whatever became of them."""
PREFIX: Final = "edgeship-run-"
_NAME: Final = re.compile(rf"{PREFIX}[0-9a-f]{{8}}")
_ADOPTED_S: Final = 3600

# A directory without a lease (its maker was cut off in between) gets one that ends in an hour.
# Only our own count (-O): in /tmp and /var/tmp anybody may put names like ours.
_CREATE: Final = f"""\
umask 077
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null) || boot=-
read -r uptime _ 2>/dev/null </proc/uptime || uptime=0
uptime=${{uptime%%.*}}
printf 'board %s %s\\n' "$boot" "$uptime"
for found in "$1"/{PREFIX}*; do
  [ -d "$found" ] && [ ! -L "$found" ] && [ -O "$found" ] || continue
  [ -e "$found/.lease" ] || (
    set -C
    printf '%s %s -\\n' "$boot" $((uptime + {_ADOPTED_S})) >"$found/.lease"
  ) 2>/dev/null
  read -r lease <"$found/.lease" && printf 'run %s %s\\n' "${{found##*/}}" "$lease"
done
mkdir "$1/$2" || exit 1
printf '%s %s %s\\n' "$boot" $((uptime + $3)) "$4" >"$1/$2/.lease" || {{ rm -rf "$1/$2"; exit 1; }}
"""

# One look at all environments together first: it costs three processes, not three for each.
# Kernel threads have no exe. A process may fork while we look, so we look until none is left.
_END: Final = f"""\
end_run() {{
  for round in 1 2 3 4 5; do
    cat /proc/[0-9]*/environ 2>/dev/null | tr '\\000' '\\n' | grep -qxF "{MARK}=$1" || return 0
    [ "$round" -lt 4 ] || sleep 1
    for entry in /proc/[0-9]*; do
      [ -r "$entry/environ" ] && [ -e "$entry/exe" ] || continue
      tr '\\000' '\\n' 2>/dev/null <"$entry/environ" | grep -qxF "{MARK}=$1" || continue
      kill -KILL "${{entry#/proc/}}"
    done 2>/dev/null
  done
  printf 'runs %s\\n' "$1"
}}
base=$1
shift
for name in "$@"; do end_run "$name"; done
"""

_REMOVE: Final = f"""\
{_END}
for name in "$@"; do
  rm -rf "$base/$name" 2>/dev/null || {{ chmod -R u+rwx "$base/$name"; rm -rf "$base/$name"; }}
  [ ! -e "$base/$name" ] || printf 'stays %s\\n' "$name"
done
"""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was below a base when a run's directory was made there.

    Attributes:
        boot: Boot id of the board, "-" where it has none.
        uptime_s: Of the board, whole seconds.
        leases: By name of the directory, of earlier runs and those of others that go on.
    """

    boot: str
    uptime_s: int
    leases: dict[str, Lease]


def create_directory(
    connection: Connection,
    base: str,
    name: str,
    *,
    where: str,
    owner: str,
    lifetime_s: int,
    deadline_s: float,
) -> Survey:
    """Make `base/name`, which only its owner on the board may enter, and look around.

    Raises:
        RequirementMissing: The board refuses; also where it exists, for it is not ours then.
    """
    arguments = [base, name, str(lifetime_s), owner]
    ended = connection.run(["sh", "-c", _CREATE, "sh", *arguments], deadline_s=deadline_s)
    if not ended.is_ok:
        raise refused(where, f"to make {base}/{name}", last_line(ended.stderr) or "")
    return _survey(ended.stdout.decode("utf-8", "replace"))


def end_processes(connection: Connection, base: str, name: str, *, deadline_s: float) -> bool:
    """Kill every process of a run; False where some do not go."""
    ended = connection.run(["sh", "-c", _END, "sh", base, name], deadline_s=deadline_s)
    return ended.is_ok and not ended.stdout


def remove_directories(
    connection: Connection, base: str, names: Sequence[str], *, deadline_s: float
) -> bool:
    """Kill every process of some runs and remove their directories; False where any stays."""
    assert all(_NAME.fullmatch(name) for name in names)
    ended = connection.run(["sh", "-c", _REMOVE, "sh", base, *names], deadline_s=deadline_s)
    return ended.is_ok and not ended.stdout


def _survey(text: str) -> Survey:
    boot, uptime_s, leases = "-", 0, {}
    for line in text.splitlines():
        match line.split(maxsplit=2):
            case ["board", boot_id, uptime]:
                boot, uptime_s = boot_id, int(uptime)
            case ["run", name, words] if _NAME.fullmatch(name):
                if lease := Lease.from_text(words):
                    leases[name] = lease
            case _:
                pass
    return Survey(boot=boot, uptime_s=uptime_s, leases=leases)
