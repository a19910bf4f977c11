"""Jetson: which L4T, JetPack and TensorRT a board has, and where they contradict each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgeship.targets.compatibility_versions import version_key

_SM: Final[Mapping[str, str]] = {
    "nvidia,tegra210": "5.3",
    "nvidia,tegra186": "6.2",
    "nvidia,tegra194": "7.2",
    "nvidia,tegra234": "8.7",
}
"""Compute capability by SoC (dusty-nv/jetson-containers, jetson_containers/l4t_version.py)."""
_ORIN: Final = ("6.1", "6.2")
_RELEASES: Final[Mapping[tuple[int, int], tuple[tuple[str, ...], str | None]]] = {
    (32, 6): (("4.6",), "8.0"),
    (32, 7): (("4.6",), "8.2"),
    (35, 1): (("5.0",), "8.4"),
    **{(35, minor): (("5.1",), "8.5") for minor in (2, 3, 4, 5, 6)},
    (36, 3): (("6.0",), "8.6"),
    (36, 4): (_ORIN, "10.3"),
    (36, 5): (_ORIN, "10.3"),
    (38, 2): (("7.0", "7.1"), "10.13"),
    (38, 4): (("7.0", "7.1"), "10.13"),
    (39, 0): (("7.2",), None),
    (39, 1): (("7.2",), None),
}
"""JetPacks of an L4T release and the TensorRT that they bring, as major.minor (the same file;
JetPack 6.2 brings 10.3: docs.pytorch.org/TensorRT/getting_started/jetpack.html)."""


@dataclass(frozen=True, kw_only=True)
class JetsonFacts:
    """What the packages and /etc/nv_tegra_release say; None where neither does.

    Attributes:
        l4t: Release, "36.4.3".
        jetpack: Version of the package nvidia-jetpack, "6.2+b77".
        tensorrt: Version of the package libnvinfer without its Debian revision, "10.3.0.30".
        notes: What contradicts itself.
    """

    l4t: str | None
    jetpack: str | None
    tensorrt: str | None
    notes: tuple[str, ...]


def jetson_from_text(nv_tegra_release: str, packages: str) -> JetsonFacts:
    """Hold the release file against the installed packages; the file is what flashed the board.

    Args:
        nv_tegra_release: `# R36 (release), REVISION: 4.3, GCID: ..., BOARD: ...`; what BOARD says
            is that of another board on many images, and is ignored.
        packages: Lines `NAME VERSION STATUS`.
    """
    installed = _installed(packages)
    match = re.search(r"^# R(\d+) \(release\), REVISION: ([\d.]+)", nv_tegra_release, re.MULTILINE)
    file = None if match is None else f"{match[1]}.{match[2].rstrip('.')}"
    package = _upstream(installed.get("nvidia-l4t-core"))
    jetpack = installed.get("nvidia-jetpack")
    names = [name for name in installed if re.fullmatch(r"libnvinfer\d*", name)]
    tensorrt = _upstream(installed[max(names, key=_number)]) if names else None
    l4t = file or package
    return JetsonFacts(
        l4t=l4t,
        jetpack=jetpack,
        tensorrt=tensorrt,
        notes=(*_of_l4t(file, package), *_of_release(l4t, jetpack, tensorrt)),
    )


def power_mode_from_text(text: str) -> str | None:
    """Name of `NV Power Mode: 15W`, as `nvpmodel -q` writes it; its number differs per board."""
    match = re.search(r"^NV Power Mode: *(\S.*?)\s*$", text, re.MULTILINE)
    return None if match is None else match[1]


def sm_from_compatible(compatible: Sequence[str]) -> str | None:
    """Compute capability of the SoC in a device tree, like "8.7"."""
    return next((_SM[name] for name in reversed(compatible) if name in _SM), None)


def _installed(packages: str) -> dict[str, str]:
    rows = (line.split() for line in packages.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}


def _of_l4t(file: str | None, package: str | None) -> list[str]:
    if file is None or package is None or version_key(file) == version_key(package):
        return []
    return [f"/etc/nv_tegra_release says L4T {file}, the package nvidia-l4t-core {package}"]


def _of_release(l4t: str | None, jetpack: str | None, tensorrt: str | None) -> list[str]:
    jetpacks, usual = _RELEASES.get(_major_minor(l4t) or (0, 0), ((), None))
    notes = []
    if jetpack is not None and jetpacks and _text(jetpack) not in jetpacks:
        expected = " or ".join(jetpacks)
        notes.append(f"the package nvidia-jetpack is {jetpack}, L4T {l4t} is JetPack {expected}")
    if tensorrt is not None and usual is not None and _text(tensorrt) != usual:
        notes.append(f"TensorRT is {tensorrt}, that of L4T {l4t} is {usual}")
    return notes


def _major_minor(version: str | None) -> tuple[int, int] | None:
    match = None if version is None else re.match(r"(\d+)\.(\d+)", version)
    return None if match is None else (int(match[1]), int(match[2]))


def _text(version: str) -> str:
    pair = _major_minor(version)
    return version if pair is None else f"{pair[0]}.{pair[1]}"


def _upstream(version: str | None) -> str | None:
    """Without Debian's epoch and revision (deb-version(7))."""
    return None if version is None else version.rpartition(":")[2].partition("-")[0]


def _number(name: str) -> int:
    return int(name.removeprefix("libnvinfer") or 0)
