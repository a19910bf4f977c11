# ruff: noqa: ANN401 - vendor modules and JSON have no types
from pathlib import Path
from typing import Any

import pytest

from edgeship.exporters.tensorrt.kit.gpu import compute_capability, own_free_bytes


class Library:
    def __init__(self, status: int) -> None:
        self._status = status

    def cudaDeviceGetAttribute(self, value: Any, attribute: int, _device: int) -> int:
        value._obj.value = {75: 11, 76: 0}[attribute]
        return self._status


def absent(_name: str) -> Any:
    raise OSError


def board(root: Path, *names: str) -> str:
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/compatible").write_bytes(b"".join(n.encode() + b"\0" for n in names))
    return str(root)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("nvidia,p3450-0000", "nvidia,jetson-nano", "nvidia,tegra210"), "5.3"),
        (("nvidia,jetson-xavier", "nvidia,tegra194"), "7.2"),
        (("nvidia,p3768-0000+p3767-0005", "nvidia,tegra234"), "8.7"),
        (("raspberrypi,4-model-b", "brcm,bcm2711"), None),
    ],
)
def test_the_soc_of_the_device_tree_says_it(
    tmp_path: Path, names: tuple[str, ...], expected: str | None
) -> None:
    assert compute_capability(board(tmp_path, *names), absent) == expected


def test_cuda_knows_better_where_it_answers(tmp_path: Path) -> None:
    root = board(tmp_path, "nvidia,tegra234")
    assert compute_capability(root, lambda _name: Library(0)) == "11.0"  # type: ignore[arg-type,return-value]
    assert compute_capability(root, lambda _name: Library(35)) == "8.7"  # type: ignore[arg-type,return-value]
    assert compute_capability(str(tmp_path / "nowhere"), absent) is None


class OwnMemory:
    """CUDA's runtime with a GPU whose memory is its own, or not."""

    def __init__(self, *, is_integrated: bool, status: int = 0) -> None:
        self.is_integrated, self.status = is_integrated, status

    def cudaDeviceGetAttribute(self, value: Any, attribute: int, _device: int) -> int:
        assert attribute == 18
        value._obj.value = int(self.is_integrated)
        return 0

    def cudaMemGetInfo(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = 5 << 30, 8 << 30
        return self.status


def test_only_a_gpu_with_memory_of_its_own_has_some() -> None:
    def found(library: OwnMemory) -> int | None:
        return own_free_bytes(lambda _name: library)  # type: ignore[arg-type,return-value]

    assert found(OwnMemory(is_integrated=False)) == 5 << 30
    assert found(OwnMemory(is_integrated=True)) is None
    assert found(OwnMemory(is_integrated=False, status=2)) is None
    assert own_free_bytes(absent) is None
