"""Devices file: `devices.toml`, which says what boards a lab has; all its problems at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from edgeship.device_tests.devices import (
    RUNS_DIRECTORY,
    SSH_PORT,
    Device,
    SshAddress,
    Way,
)
from edgeship.errors import ConfigurationError, Problem, RequirementMissing
from edgeship.table_values import named_tables
from edgeship.tables import Table, read_toml
from edgeship.targets.target import Runtime

DEVICES_FILE: Final = "devices.toml"
DEVICES_VARIABLE: Final = "EDGESHIP_DEVICES"
"""Environment variable with the path of the file."""
_CONFIGURATION: Final = "XDG_CONFIG_HOME"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # POSIX, "Environment Variables"
_SSH_KEYS: Final = ("host", "port", "user", "key", "known_hosts")
_LARGEST_PORT: Final = 65535


def devices_file(
    option: Path | None, directory: Path, environment: Mapping[str, str]
) -> Path | None:
    """The file that holds: the one that was named, else of the project, else of the user.

    Args:
        option: Of `--devices`; need not exist, so that reading it says that it does not.
        directory: Of the project.
        environment: Of this process.

    Returns:
        The first of them; None where nothing is named and neither of the usual places has one.
    """
    named = environment.get(DEVICES_VARIABLE)
    if option is not None:
        return option
    if named:
        return Path(named).expanduser()
    home = environment.get(_CONFIGURATION) or "~/.config"  # XDG Base Directory Specification
    usual = (directory / DEVICES_FILE, Path(home).expanduser() / "edgeship" / DEVICES_FILE)
    return next((file for file in usual if file.is_file()), None)


def load_devices(
    option: Path | None, directory: Path, environment: Mapping[str, str]
) -> tuple[Path, dict[str, Device]]:
    """Find the devices file and read it.

    Raises:
        RequirementMissing: There is none.
        ConfigurationError: With every problem of it.
    """
    file = devices_file(option, directory, environment)
    if file is None:
        problem = Problem(
            where=str(directory / DEVICES_FILE),
            what="no file says what devices there are",
            expected=f"--devices FILE, {DEVICES_VARIABLE}, or {DEVICES_FILE} beside the project",
            remedy="write one: docs/devices-toml.md has an example",
        )
        raise RequirementMissing(problem)
    return file, read_devices(file)


def read_devices(file: Path) -> dict[str, Device]:
    """Read and check a devices file; no device is asked.

    Paths of this machine may begin with `~`, and are relative to the file otherwise.

    Raises:
        ConfigurationError: With every problem of the file: unknown and missing keys, values of
            another kind, files that do not exist.
    """
    problems: list[Problem] = []
    root = read_toml(file, name=file.name, problems=problems)
    directory = file.absolute().parent
    tables = named_tables(root, "devices", "no device is named")
    devices = {name: _read_device(name, table, directory) for name, table in tables}
    root.close()
    if problems:
        raise ConfigurationError(*problems)
    return devices


def _read_device(name: str, table: Table, directory: Path) -> Device:
    if not _NAME.fullmatch(name):
        table.problem(
            "",
            "this is no name for a device",
            expected="letters, digits, dots, hyphens; probe files are named after it",
            found=repr(name),
            remedy="rename it",
        )
    if "transport" not in table:
        table.problem("transport", "the key is missing", remedy='add it: "ssh" or "local"')
    transport = table.choice("transport", Way)
    target = table.text("target")
    python = table.text("python") or "python3"
    environment = _read_environment(table)
    runs = _read_directory(table)
    programs = _read_programs(table, directory)
    address = _read_address(table, directory, transport)
    table.close()
    return Device(
        name=name,
        target=target,
        address=address,
        python=python,
        environment=environment,
        directory=runs,
        programs=programs,
    )


def _read_address(table: Table, directory: Path, transport: Way | None) -> SshAddress | None:
    is_ssh = transport is Way.SSH
    host = table.text("host", required=is_ssh)
    user = table.text("user", required=is_ssh)
    port = table.integer("port")
    if port is not None and port > _LARGEST_PORT:
        table.problem(
            "port",
            "there is no such port",
            expected=f"1 to {_LARGEST_PORT}",
            found=str(port),
            remedy="change the value",
        )
    key = _own_file(table, "key", directory)
    known_hosts = _own_file(table, "known_hosts", directory)
    if transport is Way.LOCAL:
        for name in _SSH_KEYS:
            if name in table:
                table.problem(
                    name,
                    "the device is this machine, which has no address",
                    remedy='remove the key, or make it transport = "ssh"',
                )
    if not is_ssh or host is None or user is None:
        return None
    return SshAddress(
        host=host,
        port=port or SSH_PORT,
        user=user,
        key=key,
        known_hosts=known_hosts or Path("~/.ssh/known_hosts").expanduser(),
    )


def _own_file(table: Table, key: str, directory: Path) -> Path | None:
    """An existing file of this machine."""
    text = table.text(key)
    if text is None:
        return None
    try:
        path = directory / Path(text).expanduser()
        is_there = path.is_file()
    except (OSError, RuntimeError):  # a name that is too long, the home of nobody
        path, is_there = Path(text), False
    if is_there:
        return path
    table.problem(
        key,
        "no such file",
        found=str(path),
        remedy="name one that exists here, relative to the devices file or from ~ on",
    )
    return None


def _read_directory(table: Table) -> str:
    text = table.text("directory")
    if text is None:
        return RUNS_DIRECTORY
    if not PurePosixPath(text).is_absolute():
        table.problem(
            "directory",
            "this is no absolute path on the board",
            expected=f'like "{RUNS_DIRECTORY}"',
            found=repr(text),
            remedy="write the whole path: no shell there replaces ~",
        )
    return text


def _read_environment(table: Table) -> dict[str, str]:
    environment = {}
    for name, value, below in _texts(table, "environment"):
        if not _VARIABLE.fullmatch(name):
            below.problem(
                name,
                "this is no name of an environment variable",
                expected="letters, digits and underscores",
                remedy="rename it",
            )
        if any(part.startswith("~") for part in value.split(":")):
            below.problem(
                name,
                "~ is not replaced on the board",
                found=repr(value),
                remedy="write the whole path: no shell there replaces ~",
            )
        environment[name] = value
    return environment


def _read_programs(table: Table, directory: Path) -> dict[str, Path]:
    programs = {}
    for name, _, below in _texts(table, "programs"):
        if name != Runtime.LLAMA_CPP:
            below.problem(
                name,
                "no program of this runtime is run on boards",
                expected=str(Runtime.LLAMA_CPP),
                found=repr(name),
                remedy="remove it: other runtimes are packages of the board's Python",
            )
            continue
        path = _own_file(below, name, directory)
        if path is not None:
            programs[name] = path
    return programs


def _texts(table: Table, key: str) -> list[tuple[str, str, Table]]:
    """Names, texts and the table of a table whose keys are free."""
    below = table.table(key)
    if below is None:
        return []
    found = [(name, value) for name in below.names() if (value := below.text(name)) is not None]
    return [(name, value, below) for name, value in found]
