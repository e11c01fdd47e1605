"""What drivers share about mount points: is there one, and take it away."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW = -100, 0x100
_MOUNT_ROOT = 0x2000
"""STATX_ATTR_MOUNT_ROOT (Linux 5.8)."""


def is_mounted(path: str) -> bool:
    """True when `path` is the root of a mount. Kernels before 5.8 don't say so: there, of one of another
    file system or subvolume than its parent's."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, 0, buffer) == 0:
        (attributes,) = struct.unpack_from("=Q", buffer, 8)
        (known,) = struct.unpack_from("=Q", buffer, 56)
        if known & _MOUNT_ROOT:
            return bool(attributes & _MOUNT_ROOT)
    try:
        here, parent = os.lstat(path), os.lstat(os.path.dirname(path))
    except FileNotFoundError:
        return False
    return here.st_dev != parent.st_dev


def unmount(path: str) -> None:
    """Take away what is mounted at `path`, if anything is. A busy mount is detached, and goes when its last
    user does."""
    for flags in (_UMOUNT_NOFOLLOW, _UMOUNT_NOFOLLOW | _MNT_DETACH):
        if _libc.umount2(os.fsencode(path), flags) == 0:
            return
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOENT):
            return
        if code != errno.EBUSY:
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
