from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from edgeship.artifact import Artifact
from edgeship.device_tests.board_archive import write_archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`edgeship-board.pyz`."""
    path = tmp_path_factory.mktemp("archive") / "edgeship-board.pyz"
    write_archive(path)
    return path


@pytest.fixture(scope="session")
def packs() -> SimpleNamespace:
    """The module beside this one, which writes artifacts."""
    return SimpleNamespace(**run_path(str(Path(__file__).with_name("packs.py"))))


@pytest.fixture(scope="session")
def artifact(packs: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """One that matches; not to be changed."""
    found: Artifact = packs.image_artifact(tmp_path_factory.mktemp("a") / "a", packs.image_spec())
    return found
