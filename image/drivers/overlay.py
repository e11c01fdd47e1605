"""overlayfs: read-only lower directories, one writable upper (kernel doc filesystems/overlayfs.rst).

Mounted by fsopen and `lowerdir+`, one call per layer (Linux 6.7), so that neither mount(2)'s page of options
nor the length of paths bounds the number of layers. Older kernels get mount(2) from a thread whose working
directory is the store, with paths relative to it. Invariants: `index=off`, as an upper directory outlives the
numbers that its lower layers had; `metacopy=off` and `redirect_dir=off`, so that an upper directory holds all
that changed, and becomes a layer without a look at what is below.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Sequence

from image.drivers.mounts import is_mounted, unmount
from image.full import told_when_full
from model.errors import Internal, Unsupported

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 429, 430, 431, 432
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC, _MOVE_MOUNT_F_EMPTY_PATH = 1, 1, 4
_SET_STRING, _CMD_CREATE = 1, 6
_AT_FDCWD = -100
_CLONE_FS = 0x200
_MAX_STRING = 255
"""Bytes that fsconfig takes as one value (fs/fsopen.c)."""
SWITCHED_OFF = (b"index", b"metacopy", b"redirect_dir")
MAX_LOWER = 500
"""OVL_MAX_STACK of fs/overlayfs."""


class OverlayDriver:
    """`appending` says whether the kernel has `lowerdir+`; None: find out at the first mount."""

    name = "overlay2"

    def __init__(self, *, appending: bool | None = None) -> None:
        self._appending = appending

    def prepare(self, folder: str, layers: Sequence[str]) -> None:
        parts = [("upper", 0o755), ("work", 0o700), ("root", 0o755)]
        if not layers:
            parts.append(("empty", 0o755))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for part, mode in parts:
            try:
                os.mkdir(os.path.join(folder, part), mode)
            except FileExistsError:
                continue
            if part == "upper" and layers:
                _like(layers[-1], self.upper(folder))

    def made(self, folder: str) -> bool:
        return os.path.isdir(self.upper(folder))

    def upper(self, folder: str) -> str:
        return os.path.join(folder, "upper")

    def mount(self, folder: str, layers: Sequence[str]) -> str:
        root = os.path.join(folder, "root")
        if is_mounted(root):
            return root
        if len(layers) > MAX_LOWER:
            raise Unsupported(f"{len(layers)} layers, more than the {MAX_LOWER} that overlayfs can stack")
        lower = [*reversed(layers)] or [os.path.join(folder, "empty")]
        try:
            with told_when_full("the files to be mounted"):
                self._mount(folder, root, lower)
        except OSError as error:
            raise Internal(f"overlay mount of {folder} failed: {error.strerror}") from error
        return root

    def _mount(self, folder: str, root: str, lower: Sequence[str]) -> None:
        """A kernel without `lowerdir+` refuses it either at once (6.5) or when the mount is made (before)."""
        if self._appending is not False:
            try:
                _mount_appending(folder, root, lower)
                self._appending = True
                return
            except OSError as error:
                if self._appending or error.errno not in (errno.EINVAL, errno.ENOSYS):
                    raise
        _mount_by_options(folder, root, lower)
        self._appending = False

    def unmount(self, folder: str) -> None:
        unmount(os.path.join(folder, "root"))

    def discard(self, folder: str) -> None:
        del folder


def _like(layer: str, upper: str) -> None:
    """The root that a container sees is its upper directory: it begins as the image's own."""
    status = os.stat(layer)
    os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, stat.S_IMODE(status.st_mode))
    os.utime(upper, ns=(status.st_atime_ns, status.st_mtime_ns))


def _mount_appending(folder: str, root: str, lower: Sequence[str]) -> None:
    """`lower` is topmost first."""
    paths = [*lower, os.path.join(folder, "upper"), os.path.join(folder, "work")]
    keys = [b"lowerdir+"] * len(lower) + [b"upperdir", b"workdir"]
    held: list[int] = []
    context = _call(_SYS_FSOPEN, b"overlay", _FSOPEN_CLOEXEC)
    try:
        for key, path in zip(keys, paths, strict=True):
            _set(context, key, _short(path, held))
        for key in SWITCHED_OFF:
            _set(context, key, b"off")
        _call(_SYS_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        mount = _call(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
        try:
            _call(_SYS_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(root), _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(mount)
    finally:
        os.close(context)
        for fd in held:
            os.close(fd)


def _short(path: str, held: list[int]) -> bytes:
    """The path; or, where it is too long for fsconfig or has a backslash, which some keys read as an escape,
    a name of it by a descriptor, which joins `held`."""
    raw = os.fsencode(path)
    if len(raw) <= _MAX_STRING and b"\\" not in raw:
        return raw
    held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return b"/proc/self/fd/%d" % held[-1]


def _mount_by_options(folder: str, root: str, lower: Sequence[str]) -> None:
    base = os.path.commonpath([folder, *lower])
    names = [_escaped(os.path.relpath(path, base)) for path in lower]
    upper, work = (_escaped(os.path.relpath(os.path.join(folder, p), base)) for p in ("upper", "work"))
    options = f"lowerdir={':'.join(names)},upperdir={upper},workdir={work}"
    options += "".join(f",{key.decode()}=off" for key in SWITCHED_OFF)
    if len(os.fsencode(options)) >= os.sysconf("SC_PAGE_SIZE"):
        raise Unsupported(f"{len(lower)} layers need more mount options than this kernel takes")
    failures: list[OSError] = []

    def work_in_base() -> None:
        # A working directory belongs to the process; unshare gives this thread one of its own.
        try:
            _check(_libc.unshare(_CLONE_FS))
            os.chdir(base)
            _check(_libc.mount(b"overlay", os.fsencode(root), b"overlay", 0, os.fsencode(options)))
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work_in_base, name="overlay-mount")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _escaped(path: str) -> str:
    for special in ("\\", ":", ","):
        path = path.replace(special, "\\" + special)
    return path


def _set(context: int, key: bytes, value: bytes) -> None:
    _call(_SYS_FSCONFIG, context, _SET_STRING, key, value, 0)


def _call(number: int, *args: int | bytes | None) -> int:
    return _check(_libc.syscall(number, *args))


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
