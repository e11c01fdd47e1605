"""COPY --link: what is copied is a layer of its own, laid over what stands there.

The files are made in a new directory that knows nothing of the root, then laid over it as a layer would be: a
directory over one gives it its own mode and owner, all else takes the place of what was there. Invariant: the
result is what stacking the layer would show, so it may as well be made on an empty root and stacked.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from image.build.target import Here, standing, told
from image.lower import Folder as Attributes
from image.lower import copy_attributes
from image.tarwriter import xattrs_of

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def linked(top: int) -> Iterator[int]:
    """An open empty directory to write to, which is laid over the open directory `top` at the end of the
    block."""
    if not os.listdir(top):
        yield top
        return
    name = b".flota-link-" + os.urandom(8).hex().encode()
    os.mkdir(name, 0o700, dir_fd=top)
    fd = os.open(name, _FOLDER, dir_fd=top)
    try:
        yield fd
        _lay(fd, Here(top))
        os.rmdir(name, dir_fd=top)
    finally:
        os.close(fd)


def _lay(layer: int, here: Here) -> None:
    for name in sorted(map(os.fsencode, os.listdir(layer))):
        with told(here, name):
            folder = stat.S_ISDIR(os.lstat(name, dir_fd=layer).st_mode)
            there = standing(here, name)
            if folder and there == "dir":
                _merge(layer, here, name)
                continue
            if there == "dir":
                shutil.rmtree(name, dir_fd=here.fd)
            elif there == "other" and folder:
                os.unlink(name, dir_fd=here.fd)
            os.rename(name, name, src_dir_fd=layer, dst_dir_fd=here.fd)


def _merge(layer: int, here: Here, name: bytes) -> None:
    source = os.open(name, _FOLDER, dir_fd=layer)
    try:
        status = os.fstat(source)
        xattrs = xattrs_of({key: os.getxattr(source, key) for key in os.listxattr(source)})
        target = os.open(name, _FOLDER, dir_fd=here.fd)
        try:
            _lay(source, here.below(target, name))
            copy_attributes(Attributes(status, xattrs), target)
        finally:
            os.close(target)
    finally:
        os.close(source)
    os.rmdir(name, dir_fd=layer)
