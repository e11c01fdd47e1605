"""What drivers share about mount points: is there one, and take it away."""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8


def is_mounted(path: str) -> bool:
    """True when `path` is the root of a mount, by its device or inode against its parent's."""
    try:
        here, parent = os.lstat(path), os.lstat(os.path.dirname(path))
    except FileNotFoundError:
        return False
    return here.st_dev != parent.st_dev


def unmount(path: str) -> None:
    """Take away what is mounted at `path`. A busy mount is detached and goes when its last user does."""
    while _libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOENT):
            return
        if code != errno.EBUSY:
            raise OSError(code, os.strerror(code), path)
        if _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return
