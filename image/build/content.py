"""A file's content into another file: by reference where the file system can, by the kernel where it can't,
and holes as holes.

Invariant: as many bytes as the source had when this began, or an error.
"""

from __future__ import annotations

import errno
import os

from image.extract import write_all
from image.pack import holes

SMALL = 1 << 17
"""Bytes that are read and written by this process: fewer calls."""
_AT_ONCE = 1 << 30
_ELSEHOW = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def copy_content(source: int, target: int) -> None:
    """Both are open; the target is empty. Raises OSError."""
    status = os.fstat(source)
    if status.st_size <= SMALL:
        write_all(target, os.pread(source, SMALL, 0))
        return
    regions = holes(source, status)
    if regions is not None:
        os.ftruncate(target, status.st_size)
    by_reference = True
    for offset, length in ((0, status.st_size),) if regions is None else regions:
        end = offset + length
        while offset < end:
            count = min(end - offset, _AT_ONCE)
            if by_reference:
                try:
                    done = os.copy_file_range(source, target, count, offset, offset)
                except OSError as error:
                    if error.errno not in _ELSEHOW:
                        raise
                    by_reference = False
                    continue
            else:
                os.lseek(target, offset, os.SEEK_SET)
                done = os.sendfile(target, source, offset, count)
            if not done:
                raise OSError(errno.EIO, "it became shorter while it was copied")
            offset += done
