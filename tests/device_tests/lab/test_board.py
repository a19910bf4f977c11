import pytest

from edgeship.device_tests.lab.board import lab_board, lab_boards, memory_from_text, spared_bytes
from edgeship.errors import RequirementMissing, UnknownName
from edgeship.targets import load_target

GIB = 1 << 30


def test_boards_are_the_rows_that_can_be_emulated() -> None:
    assert lab_boards() == ("cortex-a53", "raspberry-pi-4", "raspberry-pi-5")


@pytest.mark.parametrize("name", lab_boards())
def test_board_has_the_cpu_of_its_row_and_at_most_its_memory(name: str) -> None:
    board, target = lab_board(name), load_target(name)
    assert target.emulation is not None
    assert board.cpu == target.emulation.qemu_cpu
    assert board.row_memory_bytes == target.memory_bytes
    assert board.is_reduced == (board.memory_bytes < target.memory_bytes)


def test_unknown_board_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean 'raspberry-pi-4'"):
        lab_board("raspberrypi-4")


def test_memory_is_read_as_qemu_reads_it() -> None:
    assert memory_from_text("4096M") == memory_from_text("4G") == 4 * GIB


def test_board_gets_what_the_machine_can_spare() -> None:
    assert spared_bytes(4 * GIB, 16 * GIB) == 4 * GIB
    assert spared_bytes(4 * GIB, 3 * GIB + 5) == 2 * GIB
    assert spared_bytes(4 * GIB, None) == 4 * GIB


def test_machine_without_memory_is_an_error() -> None:
    with pytest.raises(RequirementMissing, match="too little memory"):
        spared_bytes(4 * GIB, GIB)
