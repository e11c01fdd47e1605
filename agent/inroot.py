"""Looking and making inside a container's root as the container would see it, without ever leaving it.

An image is a stranger's: any path in it may be a link to anywhere. Each access goes through openat2(2) with
RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS, so links are followed as if the root were `/`, and names are made
relative to a directory that is held open. Invariant: nothing outside the root is read, made or changed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator

from image import openat
from image.openat import IN_ROOT, NO_MAGICLINKS, NO_XDEV
from model.errors import InvalidInput, Unsupported

MAX_FILE = 1 << 20


def openat2(
    root: int, path: str, flags: int, mode: int = 0, *, in_root: bool = True, one_mount: bool = False
) -> int:
    """Open `path` with the directory `root` as its `/`; not `in_root`: from there, for a process whose own
    root is the container's. `one_mount`: EXDEV where something is mounted on the way. Raises OSError,
    Unsupported before Linux 5.6."""
    resolve = NO_MAGICLINKS | (IN_ROOT if in_root else 0) | (NO_XDEV if one_mount else 0)
    try:
        return openat.openat2(root, os.fsencode(path), flags, resolve, mode)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        raise Unsupported("this kernel has no openat2", hint="Linux 5.6 or later is needed") from error


@contextlib.contextmanager
def _opened(root: str) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def read_file(root: str, path: str, *, limit: int = MAX_FILE) -> bytes:
    """A regular file's bytes, at most `limit`; empty if there is none. Never blocks on a FIFO or device."""
    with _opened(root) as top:
        try:
            fd = openat2(top, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return b""
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return b""
            return os.read(fd, limit)
        finally:
            os.close(fd)


def locate(root: str, path: str) -> tuple[str, int]:
    """Where `path` leads, links followed within the root, and the mode of what is there. Raises OSError."""
    with _opened(root) as top:
        fd = openat2(top, path, os.O_PATH)
        try:
            return _inside(top, fd), os.fstat(fd).st_mode
        finally:
            os.close(fd)


def has_abi32(root: str) -> bool:
    """The root holds a loader for 32-bit x86 programs. One that is linked statically is not noticed."""
    with _opened(root) as top:
        for loader in ("/lib/ld-linux.so.2", "/lib/ld-musl-i386.so.1"):
            with contextlib.suppress(OSError):
                os.close(openat2(top, loader, os.O_PATH))
                return True
    return False


def make_directory(root: str, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> str:
    """Make `path` with its parents where missing; what is new belongs to uid:gid. Gives the place as seen
    from inside, links resolved. Raises InvalidInput when something other than a directory is in the way."""
    with _opened(root) as top:
        place = os.dup(top)
        try:
            for name in [part for part in path.split("/") if part not in ("", ".")]:
                place = _step(top, place, name, mode, (uid, gid))
            return _inside(top, place)
        except NotADirectoryError as error:
            raise InvalidInput(f"{path} can't be a directory: a file stands there in the image") from error
        except OSError as error:
            raise InvalidInput(f"{path} can't be made in the image: {error.strerror}") from error
        finally:
            os.close(place)


def _step(top: int, place: int, name: str, mode: int, owner: tuple[int, int]) -> int:
    """One name down, made if missing. `place` is closed when this succeeds."""
    where = posixpath.join(_inside(top, place), name)
    try:
        below = openat2(top, where, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        try:
            os.mkdir(name, mode, dir_fd=place)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "a dangling link stands there") from None
        below = openat2(top, where, os.O_PATH | os.O_DIRECTORY)
        if owner != (0, 0):
            os.chown(f"/proc/self/fd/{below}", *owner)
    os.close(place)
    return below


def _inside(top: int, fd: int) -> str:
    """Where `fd` is, as a path from `top`."""
    base, path = (os.readlink(f"/proc/self/fd/{n}") for n in (top, fd))
    if path == base:
        return "/"
    if base != "/" and not path.startswith(base + "/"):
        raise PermissionError(errno.EPERM, "it lies outside the root")
    return path if base == "/" else path[len(base) :]


def resolve_target(root: str, target: str) -> str:
    """Where a mount on `target` will land inside the root, links resolved; missing parts stay as written.

    Raises InvalidInput when it lands on the root itself or in /proc, or when the last part is a dangling or
    looping link: runc would follow such a link again, and lose a race against it (CVE-2021-30465).
    """
    with _opened(root) as top:
        parts = [part for part in posixpath.normpath("/" + target.lstrip("/")).split("/") if part]
        for known in range(len(parts), -1, -1):
            try:
                fd = openat2(top, "/" + "/".join(parts[:known]), os.O_PATH)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InvalidInput(f"mount target {target} in the image: {error.strerror}") from error
            try:
                resolved = posixpath.join(_inside(top, fd), *parts[known:])
                _check_missing(fd, parts[known:], target)
            finally:
                os.close(fd)
            break
        else:
            raise InvalidInput(f"mount target {target}: the root is gone")
    if resolved == "/" or resolved == "/proc" or resolved.startswith("/proc/"):
        raise InvalidInput(f"mount target {target} leads to {resolved} in the image")
    return resolved


def _check_missing(parent: int, missing: list[str], target: str) -> None:
    if missing:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(f"/proc/self/fd/{parent}/{missing[0]}")
            raise InvalidInput(f"mount target {target}: a dangling link stands there in the image")
