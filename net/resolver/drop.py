"""Giving up what the resolver does not need: it reads bytes from every container of the host.

Left are a user of its own that owns nothing, and the capability to bind ports below 1024. Descriptors opened
before stay open.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct

USER = 61053
"""User and group of the process; outside of what distributions and systemd give out (61184 up), nobody's."""
MOST_FILES = 8192
"""Sockets: four for each of the forwarder's flights, and connections."""
_CAP_NET_BIND_SERVICE = 10
_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 8, 38
_CAPABILITY_VERSION = 0x20080522


def drop_privileges() -> None:
    """Nothing happens where we are not root. Raises OSError."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-500")
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    kept = 1 << _CAP_NET_BIND_SERVICE
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _check(libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)))
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
