"""Toolchain: which TensorRT this machine has, as a Python package and as trtexec."""

import json
import os
import shutil
import sys
from typing import Dict, List, NamedTuple, Optional

from edgeship.exporters.tensorrt.kit.kit_file import Kit
from edgeship.exporters.tensorrt.kit.process import run_process
from edgeship.exporters.tensorrt.kit.stopped import Stopped, first_line
from edgeship.exporters.tensorrt.kit.tensorrt_version import (
    Numbers,
    is_accepted,
    numbers,
    spelled,
    version_from_banner,
)

_ASK_S = 180.0
"""A choice: loading TensorRT's and CUDA's libraries takes seconds, from an SD card many."""
_USUAL = "/usr/src/tensorrt/bin/trtexec"
"""Where NVIDIA's Debian packages put it."""
_ELF = b"\x7fELF"
"""elf(5)."""
ANSWER = "edgeship-answer: "
"""Begins the line of the child that `ask` of `child.py` writes."""


class Toolchain(NamedTuple):
    """What engines are built and measured with.

    Attributes:
        version: Of TensorRT.
        has_python: The Python package is there in that version.
        trtexec: Path of the program in that version; None where there is none.
        sm: Of the GPU; None where nobody says it.
        stand_in: Why what is here cannot be NVIDIA's TensorRT; None where nothing speaks against
            it.
    """

    version: Numbers
    has_python: bool
    trtexec: Optional[str]
    sm: Optional[str]
    stand_in: Optional[str] = None

    @property
    def way(self) -> str:
        """What builds: "python" or "trtexec"."""
        return "python" if self.has_python else "trtexec"


def find_toolchain(kit: Kit, child: List[str], *, trtexec: Optional[str], root: str) -> Toolchain:
    """What is here, and is of a version that the kit is for.

    Args:
        kit: For which TensorRT and which GPU.
        child: Command of a process that answers `ask`.
        trtexec: Path of the program that shall build; None leaves the choice.
        root: Where /proc is.

    Raises:
        Stopped: "no-tensorrt": there is none; "incompatible": another version, another GPU.
    """
    found = _ask(child, root)
    python = numbers(str(found["tensorrt"] or ""))
    program = trtexec or shutil.which("trtexec") or _existing(_USUAL)
    of_program = _version_of(program) if program is not None else None
    if trtexec is not None and of_program is None:
        message = f"{trtexec} does not say its version as trtexec does"
        raise Stopped("no-tensorrt", message)
    if trtexec is not None:
        python = ()
    candidates = [version for version in (python, of_program) if version]
    if not candidates:
        raise Stopped("no-tensorrt", _absent(found, program))
    for version in candidates:
        if is_accepted(version, kit.accepts):
            toolchain = Toolchain(
                version=version,
                has_python=version == python,
                trtexec=program if of_program == version else None,
                sm=found["sm"],
            )
            _require_gpu(kit, toolchain)
            return toolchain._replace(stand_in=_stand_in(toolchain, found["pure"]))
    message = "this kit is for TensorRT {}.x, and here is {}: build the target's row for it"
    there = " and ".join(spelled(version) for version in candidates)
    raise Stopped("incompatible", message.format(kit.accepts, there))


def _require_gpu(kit: Kit, toolchain: Toolchain) -> None:
    if toolchain.sm is None:
        message = "neither CUDA nor the device tree says which GPU this is (needed: SM {})"
        raise Stopped("no-tensorrt", message.format(kit.sm))
    if toolchain.sm != kit.sm:
        message = "this kit is for a GPU of SM {} ({}), and here is SM {}"
        raise Stopped("incompatible", message.format(kit.sm, kit.target, toolchain.sm))


def _stand_in(toolchain: Toolchain, pure: Optional[str]) -> Optional[str]:
    """NVIDIA's are compiled: a script may run anything, and what it tells is not TensorRT's."""
    if toolchain.has_python and pure is not None:
        return f"the package tensorrt has nothing compiled ({pure})"
    if toolchain.trtexec is not None and not _is_elf(toolchain.trtexec):
        return f"{toolchain.trtexec} is no compiled program: give NVIDIA's own with --trtexec"
    return None


def _is_elf(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return False


def _ask(child: List[str], root: str) -> Dict[str, Optional[str]]:
    """TensorRT's Python package and the GPU, from a process that may die of them."""
    ended = run_process([*child, "ask", root], _ASK_S)
    for line in reversed(ended.lines):
        if line.startswith(ANSWER):
            answer: Dict[str, Optional[str]] = json.loads(line[len(ANSWER) :])
            return answer
    said = first_line("\n".join(ended.lines[-1:])) if ended.lines else f"status {ended.status}"
    problem = f"asking for it ended with: {said}"
    return {"tensorrt": None, "problem": problem, "sm": None, "pure": None}


def _version_of(program: str) -> Optional[Numbers]:
    """Of trtexec's banner, which its help begins with."""
    ended = run_process([program, "--help"], _ASK_S)
    return version_from_banner("\n".join(ended.lines))


def _existing(path: str) -> Optional[str]:
    return path if os.access(path, os.X_OK) else None


def _absent(found: Dict[str, Optional[str]], program: Optional[str]) -> str:
    parts = ["{}: {}".format(sys.executable, found["problem"] or "no package tensorrt")]
    if program is None:
        parts.append(f"no trtexec in PATH or at {_USUAL}")
    else:
        parts.append(f"{program} does not say its version as trtexec does")
    return "no TensorRT was found ({}); install JetPack's, or give --trtexec".format(
        "; ".join(parts)
    )
