from pathlib import Path

import pytest

from edgeship.device_tests.board.packages import import_package, is_there, numbers, version_of
from edgeship.device_tests.board.stopped import Stopped


@pytest.fixture
def stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Stopped:
    """What importing a package of this source ends with."""
    name = f"vendor_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(request.param)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert is_there(name)
    with pytest.raises(Stopped) as caught:
        import_package(name, "vendor")
    return caught.value


ARRAY_API = """
try:
    raise AttributeError("_ARRAY_API not found")
except AttributeError:
    raise ImportError("SystemError of the extension")
"""


@pytest.mark.parametrize(
    "stopped",
    [
        "raise ImportError('numpy.core.multiarray failed to import')",
        "raise RuntimeError('module compiled against API version 0xe but this version is 0xd')",
        "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
        ARRAY_API,
    ],
    indirect=True,
    ids=["import", "api", "cython", "cause"],
)
def test_a_package_for_another_numpy_is_named(stopped: Stopped) -> None:
    assert stopped.outcome == "wrong-numpy"
    assert stopped.message.startswith("vendor does not work with numpy ")


@pytest.mark.parametrize(
    "stopped",
    [
        'raise ImportError("libm.so.6: version `GLIBC_2.34\' not found")',
        "import a_module_that_is_nowhere",
        "raise OSError('cannot load library')",
    ],
    indirect=True,
    ids=["glibc", "dependency", "library"],
)
def test_a_package_that_does_not_load_says_why(stopped: Stopped) -> None:
    assert stopped.outcome == "no-runtime"
    assert stopped.message.startswith("vendor is there and cannot be imported: ")


def test_a_package_that_is_nowhere_is_none() -> None:
    assert not is_there("a_module_that_is_nowhere.inside")
    with pytest.raises(Stopped, match=r"^this Python has no vendor$") as caught:
        import_package("a_module_that_is_nowhere.inside", "vendor")
    assert caught.value.outcome == "no-runtime"


def test_versions_are_those_of_distributions() -> None:
    assert str(version_of("numpy")).count(".") == 2
    assert version_of("a-distribution-that-is-nowhere") is None


@pytest.mark.parametrize(
    ("version", "expected"), [("2.14.0rc1", (2, 14, 0)), ("1.13", (1, 13)), ("dev", ())]
)
def test_numbers_lead_a_version(version: str, expected: tuple[int, ...]) -> None:
    assert numbers(version) == expected
