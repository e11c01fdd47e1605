"""What a process that works on a stranger's files gives up before it looks at the first of them.

Invariant: after `into_root` no name leads out of the new root, memory is bounded, and of root's powers only
those over files are left. Linux only: prctl(2), capset(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

MEMORY = 512 << 20
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_VERSION_3 = 0x20080522
_KEPT = (0, 1, 2, 3, 4, 27, 31)
"""CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID MKNOD SETFCAP (capability.h)."""
_SYS_ADMIN, _SYS_CHROOT = 21, 18


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def die_with_parent() -> None:
    """Whoever started this process will not live to use what it makes: it ends too."""
    parent = os.getppid()
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        sys.exit(1)


def into_root(folder: str | int, *, trusted: bool = False, again: bool = False) -> None:
    """Make a directory (a path, or an open one) this process's root. `trusted`: attributes of that kind,
    which overlayfs's are, are to be read and set; the kernel wants CAP_SYS_ADMIN for it. `again`: it will go
    further in."""
    if isinstance(folder, int):
        os.fchdir(folder)
        os.chroot(".")
    else:
        os.chroot(folder)
    os.chdir("/")
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _drop((*_KEPT, *((_SYS_ADMIN,) if trusted else ()), *((_SYS_CHROOT,) if again else ())))


def _drop(numbers: tuple[int, ...]) -> None:
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    kept = sum(1 << number for number in numbers)
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    _check(_libc.capget(ctypes.byref(header), data))
    low = data[0].permitted & kept
    data[0] = _Data(low, low, 0)
    data[1] = _Data(0, 0, 0)
    _check(_libc.capset(ctypes.byref(header), data))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
