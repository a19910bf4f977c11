from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgeship.device_tests.transports.lease import Lease, is_owner_running, owner_of_this_process

LEASE = Lease(boot="b1", ends_s=1000, owner="m:1:0:42:7")
PRINT_OWNER = (
    "from edgeship.device_tests.transports.lease import owner_of_this_process as owner;"
    "print(owner())"
)


@pytest.mark.parametrize(
    ("boot", "uptime_s", "is_running", "is_over"),
    [
        ("b1", 999, True, False),
        ("b1", 999, None, False),
        ("b1", 999, False, True),
        ("b1", 1000, True, True),
        ("b2", 5, True, True),
    ],
)
def test_lease_ends_by_time_reboot_or_death(
    boot: str, uptime_s: int, is_running: bool | None, is_over: bool
) -> None:
    assert LEASE.is_over(boot=boot, uptime_s=uptime_s, is_running=lambda _: is_running) is is_over


@pytest.mark.parametrize("text", ["", "b1", "b1 soon o", "b1 -5 o", "b1 5 o more"])
def test_what_is_no_lease_is_none(text: str) -> None:
    assert Lease.from_text(text) is None


def test_lease_is_read() -> None:
    assert Lease.from_text("b1 1000 m:1:0:42:7\n") == LEASE


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_owner_is_known_to_run_only_while_it_does() -> None:
    own = owner_of_this_process()
    assert is_owner_running(own) is True
    ended = subprocess.run(
        [sys.executable, "-c", PRINT_OWNER], capture_output=True, text=True, check=True
    )
    assert is_owner_running(ended.stdout.strip()) is False
    earlier = own.rpartition(":")[0] + ":1"
    assert is_owner_running(earlier) is False, "the number was given away again"


def test_processes_of_other_machines_are_nobodys_guess() -> None:
    machine, rest = owner_of_this_process().split(":", 1)
    assert is_owner_running(f"0{machine}:{rest}") is None
    assert is_owner_running("-") is None
    assert str(os.getpid()) in rest
