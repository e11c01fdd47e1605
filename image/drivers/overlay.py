"""overlayfs: read-only lower directories, one writable upper (kernel doc filesystems/overlayfs.rst).

Mounted by fsopen and `lowerdir+`, one call per layer, so that neither mount(2)'s page of options nor the
length of paths bounds the number of layers; kernels before 6.5 fall back to mount(2) with short relative
paths.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from image.drivers.mounts import is_mounted, unmount
from model.errors import Internal, Unsupported

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 429, 430, 431, 432
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC, _MOVE_MOUNT_F_EMPTY_PATH = 1, 1, 4
_SET_STRING, _CMD_CREATE = 1, 6
_AT_FDCWD = -100
MAX_LOWER = 500
"""OVL_MAX_STACK of fs/overlayfs."""


class OverlayDriver:
    name = "overlay2"

    def prepare(self, folder: str, layers: Sequence[str]) -> None:
        del layers
        for part, mode in (("upper", 0o755), ("work", 0o700), ("root", 0o755)):
            os.makedirs(os.path.join(folder, part), mode=mode, exist_ok=True)

    def upper(self, folder: str) -> str:
        return os.path.join(folder, "upper")

    def mount(self, folder: str, layers: Sequence[str]) -> str:
        root = os.path.join(folder, "root")
        if is_mounted(root):
            return root
        if len(layers) > MAX_LOWER:
            raise Unsupported(f"{len(layers)} layers, more than the {MAX_LOWER} that overlayfs can stack")
        try:
            _mount_new(folder, root, layers)
        except OSError as error:
            raise Internal(f"overlay mount of {folder} failed: {error.strerror}") from error
        return root

    def unmount(self, folder: str) -> None:
        unmount(os.path.join(folder, "root"))


def _mount_new(folder: str, root: str, layers: Sequence[str]) -> None:
    context = _call(_SYS_FSOPEN, b"overlay", _FSOPEN_CLOEXEC)
    try:
        try:
            for layer in reversed(layers):
                _set(context, b"lowerdir+", layer)
        except OSError as error:
            if error.errno != 22:
                raise
            _mount_old(folder, root, layers)
            return
        _set(context, b"upperdir", os.path.join(folder, "upper"))
        _set(context, b"workdir", os.path.join(folder, "work"))
        _call(_SYS_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        mount = _call(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
        try:
            _call(_SYS_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(root), _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(mount)
    finally:
        os.close(context)


def _mount_old(folder: str, root: str, layers: Sequence[str]) -> None:
    """For kernels without `lowerdir+`: one string, which must fit a page."""
    lower = ":".join(reversed(layers))
    options = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work"
    if len(options) >= os.sysconf("SC_PAGE_SIZE"):
        raise Unsupported(f"{len(layers)} layers need more mount options than this kernel takes")
    if _libc.mount(b"overlay", os.fsencode(root), b"overlay", 0, os.fsencode(options)) != 0:
        _raise()


def _set(context: int, key: bytes, value: str) -> None:
    _call(_SYS_FSCONFIG, context, _SET_STRING, key, os.fsencode(value), 0)


def _call(number: int, *args: int | bytes | None) -> int:
    result: int = _libc.syscall(number, *args)
    if result < 0:
        _raise()
    return result


def _raise() -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
