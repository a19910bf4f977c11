import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeship.device_tests.lab.board import LabBoard
from edgeship.device_tests.lab.boot import boot, new_disk
from edgeship.device_tests.lab.image import LabImage
from edgeship.errors import RequirementMissing

WriteProgram = Callable[[str, str], Path]
PI: LabBoard = LabBoard(
    name="pi", cpu="cortex-a72", cores=1, memory_bytes=192 << 20, row_memory_bytes=192 << 20
)
SERIAL = """\
for word; do
    case $word in file:*/serial.log) echo 'Kernel panic' >${word#file:} ;; esac
done
"""

pytestmark = pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")


def test_qemu_that_ends_is_an_error_with_its_message(
    made_up_image: LabImage, write_program: WriteProgram
) -> None:
    write_program("qemu-system-aarch64", "#!/bin/sh\necho no such CPU >&2\nexit 1\n")
    with (
        pytest.raises(RequirementMissing, match="QEMU ended: no such CPU"),
        boot(PI, made_up_image),
    ):
        pass


def test_board_without_ssh_is_an_error_with_its_console(
    made_up_image: LabImage, write_program: WriteProgram
) -> None:
    write_program("qemu-system-aarch64", f"#!/bin/sh\n{SERIAL}exec sleep 60\n")
    with (
        pytest.raises(RequirementMissing, match=r"no SSH in 0 s.*console: Kernel panic"),
        boot(PI, made_up_image, deadline_s=0.4),
    ):
        pass


def test_port_that_was_taken_meanwhile_is_tried_again_with_another(
    made_up_image: LabImage, write_program: WriteProgram, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    write_program(
        "qemu-system-aarch64",
        f"#!/bin/sh\necho \"$@\" >>{calls}\necho 'Could not set up host forwarding rule' >&2\n"
        "exit 1\n",
    )
    with pytest.raises(RequirementMissing, match="every port"), boot(PI, made_up_image):
        pass
    lines = calls.read_text().splitlines()
    ports = {line.partition("hostfwd=tcp:127.0.0.1:")[2].partition("-")[0] for line in lines}
    assert len(lines) == 5
    assert len(ports) > 1


def test_new_disk_is_the_image_s_and_overwrites_nothing(
    made_up_image: LabImage, tmp_path: Path
) -> None:
    disk = new_disk(made_up_image, tmp_path / "disk")
    assert disk.read_bytes() == made_up_image.disk.read_bytes()
    with pytest.raises(FileExistsError):
        new_disk(made_up_image, disk)
