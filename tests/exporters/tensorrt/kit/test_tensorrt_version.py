import pytest

from edgeship.exporters.tensorrt.kit.stopped import Stopped
from edgeship.exporters.tensorrt.kit.tensorrt_version import (
    Numbers,
    generation_of,
    is_accepted,
    numbers,
    version_from_banner,
)


@pytest.mark.parametrize(
    ("banner", "expected"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec --help", (8, 2, 1)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec", (8, 5, 2)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b26] # trtexec", (10, 3, 0)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101602] [b10] # trtexec", (10, 16, 2)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v11.1.0.106] [b48] # x", (11, 1, 0)),
        ("trtexec: command not found", None),
    ],
)
def test_the_banner_says_the_version(banner: str, expected: Numbers | None) -> None:
    assert version_from_banner(banner) == expected


@pytest.mark.parametrize(
    ("version", "accepts", "expected"),
    [
        ("10.3.0", "10.3", True),
        ("10.3.1.2", "10.3", True),
        ("10.13.3.9.post1", "10.1", False),
        ("10.13.3.9.post1", "10.13", True),
        ("8.6.2", "8.5", False),
        ("8.6.2", "", False),
    ],
)
def test_major_and_minor_decide(version: str, accepts: str, expected: bool) -> None:
    assert is_accepted(numbers(version), accepts) is expected


@pytest.mark.parametrize("version", ["7.1.3", "9.3.0", "12.0.0"])
def test_nothing_is_assumed_of_other_versions(version: str) -> None:
    with pytest.raises(Stopped, match="knows the major versions 8, 10, 11"):
        generation_of(numbers(version))
