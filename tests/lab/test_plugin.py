"""`pytest --pyargs edgeship.device_tests --device NAME`, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from edgeship.artifact import RuntimeNeed, read_artifact, write_manifest
from edgeship.device_tests.lab.address import Address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ARTIFACT: Final = "build/raspberry-pi-4/onnx-int8"
FAILED: Final = 1  # pytest.ExitCode.TESTS_FAILED


def run_pytest(directory: Path, *arguments: str) -> tuple[int, str]:
    """Away from the checkout and its configuration."""
    command = [sys.executable, "-m", "pytest", "--pyargs", "edgeship.device_tests", "-rA"]
    command += ["-p", "no:cacheprovider", "-p", "no:anyio", "--import-mode=importlib", *arguments]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout


def counts(said: str) -> dict[str, int]:
    """Of pytest's last line: {"passed": 2, "skipped": 1}."""
    pairs = re.findall(r"(\d+) (passed|failed|skipped|error)", said.splitlines()[-1])
    return {word: int(number) for number, word in pairs}


@pytest.mark.usefixtures("lab")
def test_what_fits_passes_and_what_the_board_lacks_is_skipped(built: Path, tmp_path: Path) -> None:
    lacking = built / "build/raspberry-pi-4/onnx-lacking"
    shutil.copytree(built / ARTIFACT, lacking)
    manifest = read_artifact(lacking).manifest
    needs = replace(manifest.requires, any_of=(RuntimeNeed(runtime="tensorrt", min="10"),))
    write_manifest(lacking, replace(manifest, requires=needs))
    shutil.rmtree(built / "build/raspberry-pi-4/onnx-fp32")
    code, said = run_pytest(
        tmp_path, "--device", "lab:raspberry-pi-4", "--artifacts", str(built / "build")
    )
    assert code == 0, said
    assert counts(said) == {"passed": 2, "skipped": 1}, said
    (skipped,) = (line for line in said.splitlines() if line.startswith("SKIPPED"))
    assert "tensorrt" in skipped
    assert "onnxruntime" in skipped  # which the board has


def test_a_broken_board_fails_once(
    built: Path, write_devices: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "known_hosts").touch()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and nobody listens
        port = silent.getsockname()[1]
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
        known = tmp_path / "known_hosts"
        address = Address(host="127.0.0.1", port=port, user="x", key=key, known_hosts=known)
        devices = str(write_devices(address))
        code, said = run_pytest(
            tmp_path,
            *("--device", "desk", "--devices", devices, "--artifacts", str(built / "build")),
        )
    assert code == FAILED, said
    artifacts = len(list((built / "build").rglob("manifest.json")))
    assert counts(said) == {"failed": 1, "skipped": artifacts}, said
    assert said.count("the board is broken") >= 2
    assert f"127.0.0.1:{port}" in said
