from pathlib import Path

import pytest

from edgeship.device_tests.lab.root import configure_root, prepare_root
from edgeship.device_tests.lab.root_files import ROOT_FILES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As it is after packages, with a llama.cpp beside it."""
    root = tmp_path / "root"
    prepare_root(root)
    masters = root / "usr/share/base-passwd"
    masters.mkdir(parents=True)
    (masters / "passwd.master").write_text("root:*:0:0:root:/root:/bin/bash\n")
    (masters / "group.master").write_text("root:*:0:\n")
    extra = tmp_path / "llama"
    for name in ("bin/llama-server", "python/llama_cpp/__init__.py"):
        (extra / name).parent.mkdir(parents=True)
        (extra / name).touch(mode=0o755)
    configure_root(
        root,
        files=ROOT_FILES,
        extras={"llama": extra},
        python="3.11",
        authorized_key="ssh-ed25519 AAAA\n",
        host_key=b"private",
    )
    return root


def test_folders_are_merged_as_debian_12_has_them(root: Path) -> None:
    for name in ("bin", "sbin", "lib"):
        assert (root / name).readlink() == Path("usr", name)
        assert (root / "usr" / name).is_dir()


def test_users_are_debian_s_and_ours(root: Path) -> None:
    names = [line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()]
    assert names == ["root", "sshd", "edgeship"]
    names = [line.split(":")[0] for line in (root / "etc/group").read_text().splitlines()]
    assert names == ["root", "edgeship"]


def test_host_key_is_read_by_root_only(root: Path) -> None:
    assert (root / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600


def test_scripts_may_be_executed_and_settings_may_not(root: Path) -> None:
    assert (root / "etc/edgeship/start").stat().st_mode & 0o777 == 0o755
    assert (root / "etc/ssh/sshd_config").stat().st_mode & 0o777 == 0o644


def test_programs_and_packages_of_extras_are_found_on_the_board(root: Path) -> None:
    program = root / "usr/local/bin/llama-server"
    assert program.readlink() == Path("/opt/llama/bin/llama-server")
    assert (root / "opt/llama/bin/llama-server").is_file()
    paths = root / "usr/local/lib/python3.11/dist-packages/edgeship-lab.pth"
    assert paths.read_text().splitlines() == ["/opt/rt", "/opt/llama/python"]
