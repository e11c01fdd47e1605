"""btrfs: an image is a subvolume, a container a snapshot of it, which shares all that it has not changed.

An image's subvolume stands beside its topmost layer, `tree` beside `fs`. It is made when the image's first
container is, out of the nearest image below that has one; its files share the blocks of the layers', and it
goes with the layer. Invariant: `tree` has its name only when it is complete and on disk, and nobody writes to
it then. Source: linux/btrfs.h; the ioctls are made on the directory that holds the subvolume.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Sequence

from image.drivers.copying import copy_layers, failure
from model.errors import Unsupported

_CREATE, _DESTROY, _SNAPSHOT = 0x5000940E, 0x5000940F, 0x50009417
_NAME, _SNAPSHOT_NAME = 8, 56
"""Where the name begins in btrfs_ioctl_vol_args and btrfs_ioctl_vol_args_v2."""
_ARGUMENTS = 4096
_ROOT_INODE = 256
"""BTRFS_FIRST_FREE_OBJECTID, of every subvolume's own directory."""
_MAGIC = 0x9123683E
_libc = ctypes.CDLL(None, use_errno=True)


class BtrfsDriver:
    name = "btrfs"

    def __init__(self) -> None:
        self._building = threading.Lock()

    def prepare(self, folder: str, layers: Sequence[str]) -> None:
        root = os.path.join(folder, "root")
        if is_subvolume(root):
            return
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            _require(folder)
            if layers:
                snapshot(self._image(layers), root)
            else:
                create(root)
        except OSError as error:
            raise failure(error, f"snapshot of an image at {folder}", self.name) from error

    def _image(self, layers: Sequence[str]) -> str:
        """The subvolume of the layers."""
        tree = _tree(layers[-1])
        with self._building:
            if not is_subvolume(tree):
                self._build(layers, tree)
        return tree

    def _build(self, layers: Sequence[str], tree: str) -> None:
        work = f"{tree}.new"
        if is_subvolume(work):
            destroy(work)
        known = next((n for n in range(len(layers) - 1, 0, -1) if is_subvolume(_tree(layers[n - 1]))), 0)
        if known:
            snapshot(_tree(layers[known - 1]), work)
        else:
            create(work)
        try:
            copy_layers(layers[known:], work, self.name)
            _sync(work)
            os.rename(work, tree)
        except BaseException:
            with contextlib.suppress(OSError):
                destroy(work)
            raise

    def made(self, folder: str) -> bool:
        return is_subvolume(os.path.join(folder, "root"))

    def mount(self, folder: str, layers: Sequence[str]) -> str:
        del layers
        return os.path.join(folder, "root")

    def unmount(self, folder: str) -> None:
        del folder

    def discard(self, folder: str) -> None:
        """The kernel takes its files away by and by. One that a container made subvolumes in is left to
        whoever deletes the folder."""
        root = os.path.join(folder, "root")
        if is_subvolume(root):
            try:
                destroy(root)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def upper(self, folder: str) -> str:
        del folder
        return ""


def is_subvolume(path: str) -> bool:
    """False also for what is not there, or is a mount of another file system."""
    try:
        if os.lstat(path).st_ino != _ROOT_INODE:
            return False
    except FileNotFoundError:
        return False
    return _file_system(path) == _MAGIC


def create(path: str) -> None:
    """An empty subvolume, mode 0755. Raises OSError."""
    arguments = bytearray(_ARGUMENTS)
    _ask(path, _CREATE, arguments, _NAME)
    os.chmod(path, 0o755)  # noqa: S103 - as every root begins


def snapshot(source: str, path: str) -> None:
    """A writable one, whole or not at all. Raises OSError."""
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        arguments = bytearray(_ARGUMENTS)
        struct.pack_into("=q", arguments, 0, fd)
        _ask(path, _SNAPSHOT, arguments, _SNAPSHOT_NAME)
    finally:
        os.close(fd)


def destroy(path: str) -> None:
    """Raises OSError: ENOTEMPTY where other subvolumes are in it."""
    _ask(path, _DESTROY, bytearray(_ARGUMENTS), _NAME)


def _ask(path: str, request: int, arguments: bytearray, at: int) -> None:
    """`request` of the directory that holds, or is to hold, `path`."""
    name = os.fsencode(os.path.basename(path))
    arguments[at : at + len(name)] = name
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, request, arguments)
    finally:
        os.close(fd)


def _tree(layer: str) -> str:
    return os.path.join(os.path.dirname(layer), "tree")


def _require(folder: str) -> None:
    """Raises Unsupported where the ioctls would mean nothing."""
    if _file_system(folder) != _MAGIC:
        raise Unsupported("it is no btrfs")


def _file_system(path: str) -> int:
    """The magic number of the file system at `path` (statfs(2), whose first word it is)."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return int(ctypes.c_ulong.from_buffer(buffer).value) & 0xFFFFFFFF


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(fd)
