import os
import select
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from edgeship.device_tests.lab.board import LabBoard
from edgeship.device_tests.lab.image import LabImage
from edgeship.device_tests.lab.qemu import Machine, qemu_command

PI: LabBoard = LabBoard(
    name="pi", cpu="cortex-a72", cores=4, memory_bytes=192 << 20, row_memory_bytes=4 << 30
)


def machine(image: LabImage, folder: Path) -> Machine:
    return Machine(
        board=PI,
        image=image,
        port=2222,
        serial_log=folder / "serial.log",
        disk=None,
        is_counting=False,
    )


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_board_gets_its_memory_cpu_and_cores(made_up_image: LabImage, tmp_path: Path) -> None:
    command = qemu_command(machine(made_up_image, tmp_path), "qemu")
    assert option(command, "-m") == "192M"
    assert option(command, "-cpu") == "cortex-a72"
    assert option(command, "-smp") == "4"
    assert "-icount" not in command


def test_counting_board_has_one_core_and_a_clock_of_instructions(
    made_up_image: LabImage, tmp_path: Path
) -> None:
    counting = replace(machine(made_up_image, tmp_path), is_counting=True)
    command = qemu_command(counting, "qemu")
    assert option(command, "-smp") == "1"
    assert option(command, "-icount") == "shift=0"


def test_disk_is_forgotten_unless_it_is_ones_own(made_up_image: LabImage, tmp_path: Path) -> None:
    pristine = machine(made_up_image, tmp_path)
    assert option(qemu_command(pristine, "qemu"), "-drive").endswith("snapshot=on")
    kept = option(qemu_command(replace(pristine, disk=tmp_path / "a,b"), "qemu"), "-drive")
    assert kept.endswith("snapshot=off")
    assert "/a,,b," in kept


def test_board_reaches_no_network(made_up_image: LabImage, tmp_path: Path) -> None:
    network = option(qemu_command(machine(made_up_image, tmp_path), "qemu"), "-netdev")
    assert network == "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22"


def test_qemu_ends_where_its_starter_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho $$ >>" + str(tmp_path / "pid") + "\nexec sleep 60\n")
    program.chmod(0o755)
    starter = (
        "import shutil, sys\n"
        "from pathlib import Path\n"
        "from edgeship.device_tests.lab.board import LabBoard\n"
        "from edgeship.device_tests.lab.image import LabImage\n"
        "from edgeship.device_tests.lab.qemu import Machine, Qemu\n"
        "folder = Path(sys.argv[1])\n"
        "image = LabImage(folder=folder, key='', packages=(), wheels=(), build_s=0)\n"
        "board = LabBoard(name='', cpu='', cores=1, memory_bytes=1, row_memory_bytes=1)\n"
        "machine = Machine(board=board, image=image, port=1, serial_log=folder / 'serial.log',"
        " disk=None, is_counting=False)\n"
        "tools = {'qemu-system-aarch64': sys.argv[2], 'setpriv': shutil.which('setpriv')}\n"
        "qemu = Qemu(machine, tools)\n"
        "print(qemu._process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(tmp_path), str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        handle = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
    assert select.select([handle], [], [], 30)[0]
    os.close(handle)
