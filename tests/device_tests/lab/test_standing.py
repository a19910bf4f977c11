import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeship.device_tests.lab.board import LabBoard
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.lab.process import find_identity, is_alive
from edgeship.device_tests.lab.standing import StandingBoard, standing_board, turn_off, turn_on
from edgeship.errors import RequirementMissing

PI: LabBoard = LabBoard(
    name="pi", cpu="cortex-a72", cores=1, memory_bytes=192 << 20, row_memory_bytes=192 << 20
)
# takes QEMU's place: leaves for the background, shows the banner of an SSH server, stays
QEMU = f"""\
#!{sys.executable}
import os, re, socket, sys
line = " ".join(sys.argv)
port = int(re.search(r"hostfwd=tcp:127.0.0.1:(\\d+)-", line)[1])
server = socket.create_server(("127.0.0.1", port))
if child := os.fork():
    with open(sys.argv[sys.argv.index("-pidfile") + 1], "w") as file:
        file.write(str(child))
    os._exit(0)
os.setsid()
for number in (0, 1, 2):
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
while True:
    server.accept()[0].sendall(b"SSH-2.0-test\\r\\n")
"""


def nobody(pid: str) -> None:
    pytest.fail(f"waited for process {pid}")


@pytest.fixture
def standing(
    lab_folder: Path, made_up_image: LabImage, write_program: Callable[[str, str], Path]
) -> Iterator[StandingBoard]:
    assert not lab_folder.exists()
    write_program("qemu-system-aarch64", QEMU)
    yield turn_on(PI, made_up_image, on_wait=nobody)
    turn_off(PI.name, on_wait=nobody)


def test_board_that_is_on_is_found_by_its_name(standing: StandingBoard) -> None:
    found = standing_board("pi")
    assert found == standing
    assert found.address().port == standing.port
    known = standing.address().known_hosts.read_text()
    assert known == f"[127.0.0.1]:{standing.port} ssh-ed25519 AAAA\n"


def test_board_that_is_on_is_not_turned_on_again(standing: StandingBoard) -> None:
    assert turn_on(PI, standing.image, on_wait=nobody).process == standing.process


def test_board_that_is_on_in_another_mode_is_refused(standing: StandingBoard) -> None:
    with pytest.raises(RequirementMissing, match="expected image image, counting"):
        turn_on(PI, standing.image, counting=True, on_wait=nobody)


def test_turning_off_ends_the_process_and_forgets_the_board(standing: StandingBoard) -> None:
    assert turn_off("pi", on_wait=nobody) == standing
    assert not is_alive(standing.process)
    assert standing_board("pi") is None
    assert turn_off("pi", on_wait=nobody) is None


def test_state_of_another_process_with_the_same_number_is_stale(standing: StandingBoard) -> None:
    file = standing.folder / "board.json"
    state = json.loads(file.read_text())
    state["process"] = {"pid": os.getpid(), "start_ticks": 1}
    file.write_text(json.dumps(state))
    assert standing_board("pi") is None
    turn_off("pi", on_wait=nobody)
    assert find_identity(os.getpid()) is not None


def test_qemu_without_a_state_is_ended_before_another_starts(standing: StandingBoard) -> None:
    (standing.folder / "board.json").unlink()
    assert standing_board("pi") is None
    again = turn_on(PI, standing.image, on_wait=nobody)
    assert not is_alive(standing.process)
    assert is_alive(again.process)


def test_damaged_state_is_no_board(standing: StandingBoard) -> None:
    (standing.folder / "board.json").write_text('{"process"')
    assert standing_board("pi") is None
