"""Giving up what a process does not need: it reads bytes from every container of the host, or from everybody.

Left are a user of its own that owns nothing, the capabilities that are named, and the system calls that are
not refused (`net.supervise.seccomp`). Descriptors opened before stay open.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct

from net.supervise import seccomp

RESOLVER, PROXY, WIREGUARD = 61053, 61054, 61055
"""User and group of each process; outside of what distributions and systemd give out (61184 up), nobody's."""
CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP = 5, 6, 7, 8
CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_RESOURCE = 10, 12, 24
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 8, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_LAST_CAP = "/proc/sys/kernel/cap_last_cap"
_CAPABILITY_VERSION = 0x20080522


def become(user: int, *capabilities: int, files: int) -> int:
    """Be this user, with these capabilities and at most so many descriptors. Where we are not root, only the
    latter, as far as it goes. Returns the number of descriptors. Raises OSError."""
    may = _open_files(files)
    if os.geteuid() != 0:
        return may
    _spare(-500)
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _keep(libc, capabilities)
    seccomp.confine()
    return may


def confine(*capabilities: int) -> None:
    """Stay root, but neither we nor whatever we start has any other capability. Nothing where we are not
    root. Raises OSError."""
    if os.geteuid() != 0:
        return
    _spare(-900)
    libc = ctypes.CDLL(None, use_errno=True)
    _bound(libc, capabilities)
    _keep(libc, capabilities)


def hand_over(user: int, *capabilities: int, files: int) -> None:
    """As `become`, for the program that we become next: it has these capabilities too (capabilities(7),
    ambient). Nothing but the files where we are not root. Raises OSError."""
    _open_files(files)
    if os.geteuid() != 0:
        return
    _spare(-500)
    libc = ctypes.CDLL(None, use_errno=True)
    _bound(libc, capabilities)
    _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _keep(libc, capabilities, inherited=True)
    for number in capabilities:
        _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0))
    seccomp.confine(but=("execve",))


def _bound(libc: ctypes.CDLL, capabilities: tuple[int, ...]) -> None:
    with open(_LAST_CAP) as file:
        last = int(file.read())
    for number in set(range(last + 1)) - set(capabilities):
        _check(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))


def _open_files(wanted: int) -> int:
    """So many, or as many as we may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        except ValueError:  # no right to raise it
            wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _spare(score: int) -> None:
    """When memory is short, others go first; where that may not be said, we go like they do."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(score))


def _keep(libc: ctypes.CDLL, capabilities: tuple[int, ...], *, inherited: bool = False) -> None:
    """Those of them that we have: a container's root lacks some."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    before = ctypes.create_string_buffer(24)
    _check(libc.capget(header, before))
    kept = sum(1 << number for number in capabilities) & struct.unpack("=6I", before.raw)[1]
    passed = kept if inherited else 0
    _check(libc.capset(header, struct.pack("=6I", kept, kept, passed, 0, 0, 0)))
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
