"""Initrd: the first file system of an emulated board, which loads virtio and mounts the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

_MODULES: Final = (
    # in the order of their dependencies (modinfo of Debian's 6.1 cloud kernel); ext4 is built in
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
    "drivers/char/hw_random/virtio-rng.ko",
)
_INIT: Final = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /root || /bin/busybox poweroff -f
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""
_FILE: Final = 0o100755
_FOLDER: Final = 0o040755


def initrd_from_root(root: Path) -> bytes:
    """The initrd for the kernel and the busybox in the unpacked Debian at `root`."""
    (kernel,) = (root / "lib/modules").iterdir()
    names = [Path(module).name for module in _MODULES]
    files = {
        "init": _INIT.format(modules=" ".join(names)).encode(),
        "bin/busybox": (root / "bin/busybox").read_bytes(),
    }
    for module, name in zip(_MODULES, names, strict=True):
        files[f"modules/{name}"] = (kernel / "kernel" / module).read_bytes()
    return newc_archive(files, folders=("bin", "modules", "root", "dev"))


def newc_archive(files: Mapping[str, bytes], *, folders: tuple[str, ...]) -> bytes:
    """A cpio archive in the format "newc" (cpio(5); the kernel's early-userspace/buffer-format).

    Args:
        files: Path without a leading slash to contents; all of mode 0755, owned by root.
        folders: Those of mode 0755 that come before them.
    """
    entries = [(name, _FOLDER, b"") for name in folders]
    entries += [(name, _FILE, content) for name, content in files.items()]
    archive = bytearray()
    for inode, (name, mode, content) in enumerate(entries, start=1):
        archive += _entry(name, content, mode=mode, inode=inode)
    archive += _entry("TRAILER!!!", b"", mode=0, inode=0)
    return bytes(archive)


def _entry(name: str, content: bytes, *, mode: int, inode: int) -> bytes:
    """Thirteen numbers of eight hex digits, the name, the contents; each padded to 4 bytes."""
    links = 2 if mode == _FOLDER else 1
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, nlink, mtime, filesize, dev major/minor, rdev major/minor, namesize, 0
    numbers = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + encoded) + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)
