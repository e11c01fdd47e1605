"""The start of one userspace WireGuard device: `python -m net.wireguard.launch FOLDER NAME PROGRAM [CGROUP]`.

It gives up everything but what the program needs, and becomes the program (wireguard-go), which makes the
link. What is left: a user of its own, CAP_NET_ADMIN (for the link), no way to start others, a mount
namespace in which /var/run holds nothing but FOLDER as /var/run/wireguard, where the program puts its
control socket, and /dev/net a node of its own. The link lives as long as the process.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Sequence

from net.supervise import cgroup, drop

TUN, TUN_NUMBER = "/dev/net/tun", (10, 200)
"""Of every Linux (Documentation/admin-guide/devices.txt)."""
ENVIRONMENT = {"LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1"}
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x00020000, 4096, 16384, 1 << 18
SOCKETS = "/var/run/wireguard"
"""Compiled into the program (wireguard.com/xplatform)."""
FILES = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Returns only when it can't start: 1, or 2 for wrong words."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) not in (3, 4):
        sys.stderr.write("usage: python -m net.wireguard.launch FOLDER NAME PROGRAM [CGROUP]\n")
        return 2
    folder, name, program = words[:3]
    try:
        for trouble in cgroup.join(words[3]) if len(words) == 4 else ():
            sys.stderr.write(f"flota: {trouble}\n")
        if len(words) == 4:
            cgroup.prefer(words[3])
        os.chown(folder, drop.WIREGUARD, drop.WIREGUARD)
        _own_mounts(folder)
        drop.hand_over(drop.WIREGUARD, drop.CAP_NET_ADMIN, files=FILES)
        os.execve(program, [program, "--foreground", name], ENVIRONMENT)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"flota: {program} cannot be started for {name}: {error}\n")
    return 1


def _own_mounts(folder: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS))
    _mount(libc, "none", "/", "", _MS_REC | _MS_PRIVATE)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY)  # of this namespace, or it can't be bound in it
    _mount(libc, "tmpfs", os.path.dirname(SOCKETS), "tmpfs", 0)
    os.mkdir(SOCKETS, 0o755)
    _mount(libc, f"/proc/self/fd/{place}", SOCKETS, "", _MS_BIND)
    _mount(libc, "tmpfs", os.path.dirname(TUN), "tmpfs", 0)
    os.mknod(TUN, stat.S_IFCHR | 0o600, os.makedev(*TUN_NUMBER))
    os.chown(TUN, drop.WIREGUARD, drop.WIREGUARD)
    os.close(place)


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str, flags: int) -> None:
    _check(libc.mount(source.encode(), target.encode(), kind.encode(), flags, b"mode=755" if kind else b""))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main())
