"""Opening a path below a directory, with the kernel's promise of what is not followed on the way.

Invariant of `beneath`: no part of the path was a link, whoever changes the tree meanwhile. Source:
openat2(2). Blocking.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10
"""RESOLVE_* of linux/openat2.h."""
_SYS_OPENAT2 = 437
_LIBC = ctypes.CDLL(None, use_errno=True)
_LONGEST = 4000
"""Bytes of a path that goes to the kernel at once."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(folder: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Raises OSError, of ENOSYS before Linux 5.6."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd = _LIBC.syscall(_SYS_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        # EAGAIN: a rename raced with the walk, and the kernel could not prove that it stayed inside.
        if code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, os.strerror(code), os.fsdecode(path))


def beneath(top: int, path: bytes, flags: int) -> int:
    """Of a path of any length. Raises OSError: ELOOP or ENOTDIR where a link stands on the way."""
    with folder_of(top, path) as (folder, name):
        if b"/" not in name:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        return openat2(folder, name, flags, BENEATH | NO_SYMLINKS)


@contextlib.contextmanager
def folder_of(top: int, path: bytes, *, last: bool = False) -> Iterator[tuple[int, bytes]]:
    """(open directory, path from it), short enough for the kernel; `last`: a single name. Raises as
    `beneath`."""
    opened, folder = -1, top
    try:
        while b"/" in path and (last or len(path) > _LONGEST or not _has_openat2()):
            cut = path.rindex(b"/", 0, _LONGEST) if _has_openat2() else path.index(b"/")
            fd = _folder(folder, path[:cut])
            if opened >= 0:
                os.close(opened)
            opened = folder = fd
            path = path[cut + 1 :]
        yield folder, path
    finally:
        if opened >= 0:
            os.close(opened)


def _folder(top: int, path: bytes) -> int:
    if b"/" not in path:
        return os.open(path, _FOLDER, dir_fd=top)
    return openat2(top, path, _FOLDER, BENEATH | NO_SYMLINKS)


_known: list[bool] = []


def _has_openat2() -> bool:
    """Older kernels, and filters of system calls that don't know it, have it not."""
    if not _known:
        try:
            os.close(openat2(-100, b".", os.O_PATH, 0))
            _known.append(True)
        except OSError:
            _known.append(False)
    return _known[0]
