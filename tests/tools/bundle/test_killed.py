"""install.sh killed at every command that changes something: the old release or the new one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Final

import pytest

HERE = Path(__file__).parent
installed = SimpleNamespace(**run_path(str(HERE / "installed.py")))
Install = Callable[..., "subprocess.CompletedProcess[str]"]

PREAMBLE: Final = """\
tick() {
    calls=$((calls + 1))
    echo "$calls $1" >>"$CALLS"
    [ "$calls" -ne "$KILL_AT" ]
}
calls=0
for tool in mkdir mv ln touch; do
    eval "$tool() { tick $tool || kill -KILL \\$\\$; command $tool \\"\\$@\\"; }"
done
sync() { tick sync || kill -KILL $$; }
cp() { tick cp || { head -c 5 "$2" >"$3"; kill -KILL $$; }; command cp "$@"; }
rm() {
    tick rm || {
        [ "$1" != -rf ] || command rm -f "$3/SHA256SUMS" "$3"/*/SHA256SUMS
        kill -KILL $$
    }
    command rm "$@"
}
quick() {
    case "${5:-} ${6:-}" in
        *" self-test") tick self-test || kill -KILL $$ ;;
        "--reuse "*) tick build || { "$QUICK" "$@" >/dev/null; kill -KILL $$; } ;;
    esac
    "$QUICK" "$@"
}
. "$0"
"""
"""Functions go before commands, also in a busybox that looks for its own before PATH. The call that
is counted out is not made, but for cp and rm -rf, which are cut in the middle, and the build of an
engine, which is made and not heard of. sync is only counted: a process that dies loses no pages,
and the disk is everybody's."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A shell, and an installation that is copied for each death."""

    shell: list[str]
    quick_python: str
    template: Path
    scratch: Path

    def prefix(self, number: int) -> Path:
        prefix = self.scratch / f"prefix{number}"
        if self.template.exists():
            shutil.copytree(self.template, prefix, symlinks=True)
            space_out(prefix / "releases")
        return prefix

    def run(
        self, release: Path, action: str, prefix: Path, *, kill_at: int
    ) -> tuple[int, list[str]]:
        """The exit status, and the commands that were called."""
        calls = self.scratch / "calls"
        calls.write_text("")
        command = [*self.shell, "-c", PREAMBLE, str(release / "install.sh"), action]
        command += ["--prefix", str(prefix), "--python", "quick"]
        done = subprocess.run(
            command,
            env={"CALLS": str(calls), "KILL_AT": str(kill_at), "QUICK": self.quick_python}
            | {"PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=60,
        )
        return done.returncode, [line.split()[1] for line in calls.read_text().splitlines()]


def space_out(releases: Path) -> None:
    """Seconds between releases that were installed within one: busybox's ls sorts by no less."""
    ordered = sorted(releases.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest = ordered[-1].stat().st_mtime
    for age, path in enumerate(reversed(ordered)):
        os.utime(path, (newest - 2 * age - 2, newest - 2 * age - 2))


def local(command: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def identity(release: Path) -> str:
    return release.name.rpartition("-")[2]


def die_everywhere(
    site: Site,
    release: Path,
    action: str,
    allowed: set[str | None],
    end: Path,
    *,
    at: str = "",
) -> list[str]:
    """Kill `action` at each of its commands, or only at those that are called as `at`.

    What is left must be allowed, and be mended.
    """
    status, commands = site.run(release, action, site.prefix(0), kill_at=0)
    assert status == 0
    for number in range(1, len(commands) + 1):
        if at not in ("", commands[number - 1]):
            continue
        prefix = site.prefix(number)
        status, made = site.run(release, action, prefix, kill_at=number)
        told = f"killed at {number}, {made[-1]}"
        assert status == -signal.SIGKILL, told
        assert made == commands[:number]
        assert installed.current_release(local, str(prefix)) in allowed, told
        kit = prefix / "current/artifacts/tensorrt-kit"
        assert not kit.exists() or (kit / "engine").is_file(), told

        status, _ = site.run(end, "--install", prefix, kill_at=0)
        assert status == 0, told
        assert installed.current_release(local, str(prefix)) == identity(end), told
        left = {path.name for path in (prefix / "releases").iterdir()}
        assert not any(name.startswith(".") for name in left), told
        assert len(left) <= 4, told  # the last three, and the previous one where it is older
        links = (prefix / "releases").glob("*/artifacts/*/engine")
        kept = {link.resolve(strict=True).parent.name for link in links}
        assert kept == {path.name for path in prefix.glob("engines/*")}, told
        shutil.rmtree(prefix)
    return commands


@pytest.fixture
def site(shell: list[str], quick_python: str, tmp_path: Path) -> Site:
    return Site(
        shell=shell,
        quick_python=quick_python,
        template=tmp_path / "template",
        scratch=tmp_path,
    )


@pytest.mark.parametrize("at", ["mv", pytest.param("", marks=pytest.mark.slow)])
def test_an_update_killed_anywhere_leaves_the_old_release_or_the_new_one(
    site: Site, releases: list[Path], at: str
) -> None:
    for release in releases[2:3] if at else releases[:3]:  # three, or nothing goes
        assert site.run(release, "--install", site.template, kill_at=0)[0] == 0
    old, new = releases[2:]
    commands = die_everywhere(
        site,
        new,
        "--install",
        {identity(old), identity(new)},
        end=new,
        at=at,
    )
    kinds = {"mkdir", "cp", "sync", "mv", "ln", "self-test"}
    assert kinds | ({"rm"} if not at else set()) <= set(commands)


@pytest.mark.parametrize("at", ["mv", pytest.param("", marks=pytest.mark.slow)])
def test_an_update_of_a_kit_killed_anywhere_leaves_an_engine_that_can_be_loaded(
    site: Site, kit_releases: list[Path], at: str
) -> None:
    for release in kit_releases[2:3] if at else kit_releases[:3]:
        assert site.run(release, "--install", site.template, kill_at=0)[0] == 0
    old, new = kit_releases[2:]
    allowed: set[str | None] = {identity(old), identity(new)}
    commands = die_everywhere(site, new, "--install", allowed, end=new, at=at)
    assert {"build", "ln", "mv", "rm"} <= set(commands)


@pytest.mark.slow
def test_a_first_installation_killed_anywhere_leaves_nothing_or_the_whole(
    site: Site, releases: list[Path]
) -> None:
    allowed = {None, identity(releases[0])}
    die_everywhere(site, releases[0], "--install", allowed, end=releases[0])


@pytest.mark.slow
def test_a_rollback_killed_anywhere_leaves_either_release_and_a_way_on(
    site: Site, releases: list[Path]
) -> None:
    for release in releases[:2]:
        assert site.run(release, "--install", site.template, kill_at=0)[0] == 0
    allowed: set[str | None] = {identity(release) for release in releases[:2]}
    commands = die_everywhere(site, releases[1], "--rollback", allowed, end=releases[1])
    assert commands[0] == "self-test"


@pytest.mark.slow
def test_an_uninstallation_killed_anywhere_leaves_the_release_or_none(
    site: Site, releases: list[Path]
) -> None:
    assert site.run(releases[0], "--install", site.template, kill_at=0)[0] == 0
    allowed = {None, identity(releases[0])}
    die_everywhere(site, releases[0], "--uninstall", allowed, end=releases[0])
