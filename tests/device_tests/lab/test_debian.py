from pathlib import Path

import pytest

from edgeship.device_tests.lab.debian import SOURCES_VARIABLE, unpack_packages
from edgeship.errors import RequirementMissing


@pytest.mark.parametrize("text", ["", "deb file:/nowhere trixie main\n", "# bookworm\n"])
def test_machine_without_a_source_of_the_suite_is_told_so(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "sources.list"
    sources.write_text(text)
    monkeypatch.setenv(SOURCES_VARIABLE, str(sources))
    with pytest.raises(RequirementMissing, match="no apt source of Debian's bookworm"):
        unpack_packages(["dash"], suite="bookworm", root=tmp_path, scratch=tmp_path, tools={})
