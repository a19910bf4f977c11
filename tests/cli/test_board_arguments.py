"""What the commands of boards say of arguments that cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeship.cli import main


@pytest.mark.parametrize(
    ("arguments", "least", "found"),
    [
        (["test", "--samples", "-3"], 0, "-3"),
        (["test", "--samples", "some"], 0, "some"),
        (["bench", "--threads", "0"], 1, "0"),
        (["bench", "--threads", "²"], 1, "²"),
    ],
)
def test_a_count_that_is_none_says_what_was_expected(
    arguments: list[str], least: int, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"expected a whole number from {least} on, found {found!r}" in said


def test_a_bundle_that_is_not_there_is_not_called_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "net.tar"
    assert main(["verify", str(missing)]) == 2
    said = capsys.readouterr().err
    assert "there is no such file" in said
    assert str(missing) in said


def test_doctor_asks_which_emulated_board_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("EDGESHIP_DEVICES", raising=False)
    project = tmp_path / "edgeship.toml"
    assert main(["doctor", "--device", "lab", "-p", str(project)]) == 2
    assert "lab:TARGET" in capsys.readouterr().err
    assert not (tmp_path / ".edgeship").exists()
