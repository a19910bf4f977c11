"""Root files: what the image has of ours, beside Debian's packages."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

_INITTAB: Final = """\
::sysinit:/etc/edgeship/start
::respawn:/usr/sbin/sshd -D -e
::shutdown:/bin/sync
"""

# Messages of level 6 (info) reach the serial line, and with exception-trace so do deaths by
# SIGILL (arch/arm64/kernel/traps.c); out-of-memory kills are printed anyway (mm/oom_kill.c).
# 10.0.2.15 and 10.0.2.2 are QEMU's user network (its manual, "Network emulation").
_START: Final = """\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/lock
ip=/bin/busybox\\ ip
$ip link set lo up
$ip addr add 10.0.2.15/24 dev eth0
$ip link set eth0 up
$ip route add default via 10.0.2.2
for word in $(cat /proc/cmdline); do
    case $word in edgeship.board=*) hostname "${word#*=}" ;; esac
done
chown 1000:1000 /home/edgeship
echo 1 >/proc/sys/debug/exception-trace
echo 7 >/proc/sys/kernel/printk
"""

# No PAM: its modules were unpacked, not configured. Keys only, and ours only. FATAL, because who
# waits for the banner and hangs up is an ERROR on the console.
_SSHD: Final = """\
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
LogLevel FATAL
Subsystem sftp /usr/lib/openssh/sftp-server
"""

ROOT_FILES: Final = MappingProxyType(
    {
        "etc/inittab": _INITTAB,
        "etc/edgeship/start": _START,
        "etc/ssh/sshd_config": _SSHD,
        "etc/hostname": "edgeship\n",
        "etc/hosts": "127.0.0.1 localhost\n",
        "etc/timezone": "Etc/UTC\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "etc/edgeship/users": (
            "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
            "edgeship:x:1000:1000::/home/edgeship:/bin/bash\n"
        ),
        "etc/edgeship/groups": "edgeship:x:1000:\n",
    }
)
"""Path below / to text; what begins with "#!" may be executed."""

ROOT_LINKS: Final = MappingProxyType(
    {
        # merged /usr, as installed systems of Debian 12 have it; packages are unpacked into it
        "bin": "usr/bin",
        "sbin": "usr/sbin",
        "lib": "usr/lib",
    }
)

LATE_LINKS: Final = MappingProxyType(
    {
        "usr/sbin/init": "/bin/busybox",
        # by update-alternatives on an installed system
        "usr/bin/awk": "mawk",
        "usr/bin/which": "which.debianutils",
        "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
        "etc/mtab": "../proc/self/mounts",
    }
)
"""Made after the packages, where there is no such file yet."""
