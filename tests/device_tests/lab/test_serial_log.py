from edgeship.device_tests.lab.serial_log import (
    IllegalInstruction,
    KilledForMemory,
    illegal_instructions,
    killed_for_memory,
    last_lines,
)

# the console of an emulated Pi 4 with 192 MiB, Debian's kernel 6.1.192
RECORDED = """\
[   12.827376] python3[124]: unhandled exception: undefined instruction in zero (deleted)[fffa+1000]
[   12.829200] CPU: 1 PID: 124 Comm: python3 Not tainted 6.1.0-56-cloud-arm64 #1  Debian 6.1.192-2
[   21.700650] python3 invoked oom-killer: gfp_mask=0x400dc0(GFP_KERNEL_ACCOUNT|__GFP_ZERO), order=0
[   21.731344] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=python3,pid=123,uid=1000
[   21.733407] Out of memory: Killed process 123 (python3) total-vm:156668kB, anon-rss:140928kB, \
file-rss:8kB, shmem-rss:0kB, UID:1000 pgtables:336kB oom_score_adj:0
"""


def test_kill_for_memory_is_read_with_its_peak() -> None:
    killed = KilledForMemory(pid=123, program="python3", rss_bytes=140928 << 10)
    assert killed_for_memory(RECORDED) == (killed,)


def test_illegal_instruction_is_read_with_its_process() -> None:
    assert illegal_instructions(RECORDED) == (IllegalInstruction(pid=124, program="python3"),)


def test_other_exceptions_are_no_illegal_instructions() -> None:
    line = "[ 1.0] a.out[9]: unhandled exception: DABT (lower EL), ESR 0x92000046, level 2 fault\n"
    assert illegal_instructions(line) == ()


def test_last_lines_leave_out_empty_ones() -> None:
    assert last_lines("a\n\nb\r\n\n", 2) == "a | b"
    assert last_lines("\n", 2) == "nothing"
