from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeship.device_tests.devices import Device, SshAddress
from edgeship.device_tests.devices_file import devices_file, load_devices, read_devices
from edgeship.errors import ConfigurationError, RequirementMissing

ROOT = Path(__file__).parents[2]
FULL = """\
[devices.pi4-kitchen]
target = "raspberry-pi-4"
transport = "ssh"
host = "10.0.0.7"
port = 2222
user = "pi"
key = "keys/id"
known_hosts = "~/known"
python = "/opt/venv/bin/python"
environment = { PYTHONPATH = "/opt/rt", OMP_NUM_THREADS = "4" }
directory = "/data/runs"
programs = { "llama.cpp" = "llama-server" }

[devices.here]
transport = "local"
"""
SSH = 'transport = "ssh"\nhost = "h"\nuser = "u"\n'


def written(directory: Path, text: str) -> Path:
    file = directory / "devices.toml"
    file.write_text(text)
    return file


def problems_of(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read_devices(written(directory, text))
    return [str(problem) for problem in caught.value.problems]


def test_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("keys/id", "home/known", "llama-server"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert read_devices(written(tmp_path, FULL)) == {
        "pi4-kitchen": Device(
            name="pi4-kitchen",
            target="raspberry-pi-4",
            address=SshAddress(
                host="10.0.0.7",
                port=2222,
                user="pi",
                key=tmp_path / "keys/id",
                known_hosts=tmp_path / "home/known",
            ),
            python="/opt/venv/bin/python",
            environment={"PYTHONPATH": "/opt/rt", "OMP_NUM_THREADS": "4"},
            directory="/data/runs",
            programs={"llama.cpp": tmp_path / "llama-server"},
        ),
        "here": Device(name="here"),
    }


def test_what_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    device = read_devices(written(tmp_path, f"[devices.pi]\n{SSH}"))["pi"]
    known_hosts = Path("/home/me/.ssh/known_hosts")
    assert device.address == SshAddress(host="h", user="u", port=22, known_hosts=known_hosts)
    assert (device.python, device.directory, device.target) == ("python3", "/var/tmp", None)


def test_all_problems_at_once(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        """\
[devices."a/b"]
transport = "ssh"
port = 70000
key = "nowhere"
password = "secret"
[devices.here]
transport = "local"
host = "10.0.0.7"
directory = "~/runs"
environment = { "A-B" = "1", PYTHONPATH = "/opt:~/rt", N = 4 }
programs = { litert = "x", "llama.cpp" = "~nobody-at-all/x" }
[devices.pi]
transport = "adb"
[devices.none]
""",
    )
    expected = [
        r"a/b: this is no name for a device",
        r"a/b\.host: the key is missing",
        r"a/b\.user: the key is missing",
        r"a/b\.port: there is no such port: expected 1 to 65535, found 70000",
        r"a/b\.key: no such file: found .*/nowhere",
        r"a/b\.password: unknown key 'password'",
        r"here\.host: the device is this machine",
        r"here\.directory: this is no absolute path on the board",
        r"here\.environment\.A-B: this is no name of an environment variable",
        r"here\.environment\.PYTHONPATH: ~ is not replaced on the board",
        r"here\.environment\.N: the value is of another kind: expected text",
        r"here\.programs\.litert: no program of this runtime is run on boards",
        r"here\.programs\.llama\.cpp: no such file",
        r"pi\.transport: unknown way 'adb': expected local, ssh",
        r"none\.transport: the key is missing",
    ]
    for pattern in expected:
        assert any(re.search(f"devices.{pattern}", text) for text in found), (pattern, found)
    assert len(found) == len(expected), found
    assert "secret" not in "".join(found)


def test_a_file_without_devices_says_what_to_write(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "") == [
        "devices.toml: devices: no device is named; add a table [devices.<name>]"
    ]
    assert "unknown key 'device'" in "".join(problems_of(tmp_path, "[device.pi]\n"))


def test_no_toml(tmp_path: Path) -> None:
    assert "this is no TOML" in problems_of(tmp_path, "[devices")[0]


def test_the_first_file_of_the_order_holds(tmp_path: Path) -> None:
    project, home = tmp_path / "project", tmp_path / "config"
    (home / "edgeship").mkdir(parents=True)
    project.mkdir()
    config = {"XDG_CONFIG_HOME": str(home)}
    assert devices_file(None, project, config) is None
    user = written(home / "edgeship", "")
    assert devices_file(None, project, config) == user
    own = written(project, "")
    assert devices_file(None, project, config) == own
    named = config | {"EDGESHIP_DEVICES": str(tmp_path / "lab.toml")}
    assert devices_file(None, project, named) == tmp_path / "lab.toml"
    assert devices_file(tmp_path / "option.toml", project, named) == tmp_path / "option.toml"


def test_without_a_file_the_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequirementMissing, match="EDGESHIP_DEVICES"):
        load_devices(None, tmp_path, {"XDG_CONFIG_HOME": str(tmp_path)})


def test_a_named_file_that_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_devices(tmp_path / "none.toml", tmp_path, {})


@pytest.mark.checkout
def test_the_example_of_the_manual_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    page = (ROOT / "docs/devices-toml.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for name in re.findall(r'"~/(.*?)"', example):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert len(read_devices(written(tmp_path, example))) == 3
    table = page.partition("## What a board is asked")[0]
    keys = set(re.findall(r"^(\w+) =", example, re.MULTILINE))
    assert keys == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
