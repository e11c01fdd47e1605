"""Reading a container's files, in its own root: what a path is, and a path as a tar.

Docker's rules of paths (moby, container/archive.go): the last part is not followed when it is a link, unless
a slash comes after it; `/.` at the end means what is in a directory. Invariants: no link of /proc that leads
to another place is followed; what the kernel makes up in /proc and /sys is not copied.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from typing import NamedTuple

from agent.inroot import openat2
from image.pack import Packer
from image.walk import Found, look, open_folder, walk
from model.containerfiles import PathStat
from model.errors import InvalidInput, NotFound

_MADE_UP = ("/proc", "/sys")
_KERNELS = (*_MADE_UP, "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys/fs/cgroup")  # noqa: S108


class Source(NamedTuple):
    folder: int
    name: bytes
    label: bytes
    """Name of the topmost entry of its tar."""
    status: os.stat_result


def find(path: str, container: str) -> Source:
    """Raises NotFound, InvalidInput."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    parent, base = posixpath.split(clean)
    if clean == "/" or path.endswith("/.") or path == ".":
        parent, name, label = clean, ".", "."
    elif path.endswith("/"):
        parent, name, label = clean, ".", base
    else:
        name = label = base
    folder = opened(parent, path, container)
    status = look(folder, os.fsencode(name))
    if status is None:
        raise missing(path, container)
    return Source(folder, os.fsencode(name), os.fsencode(label), status)


def opened(folder: str, path: str, container: str) -> int:
    """A directory, links followed. Raises NotFound, InvalidInput."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(root, folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise missing(path, container) from error
        if error.errno in (errno.ELOOP, errno.EACCES):
            words = "its links lead in a circle, or to another process's files"
            raise InvalidInput(f"{path}: {words}") from error
        raise InvalidInput(f"{path}: {error.strerror}") from error
    finally:
        os.close(root)


def missing(path: str, container: str) -> NotFound:
    return NotFound(f"Could not find the file {path} in container {container}")


def tell(path: str, container: str) -> PathStat:
    source = find(path, container)
    status = source.status
    target = ""
    if stat.S_ISLNK(status.st_mode):
        target = os.path.realpath("/" + path.lstrip("/"))
    label = source.label.decode(errors="backslashreplace")
    return PathStat(
        name=posixpath.basename(posixpath.normpath("/" + path)) if label == "." else label,
        size=status.st_size,
        mode=status.st_mode,
        mtime=status.st_mtime,
        link_target=target,
    )


def get(path: str, container: str) -> Iterator[bytes]:
    """The path as a tar, with one entry at its top."""
    source = find(path, container)
    root = os.stat("/").st_dev
    devices = {place: found.st_dev for place in _KERNELS if (found := _stat(place)) is not None}
    if source.status.st_dev != root and source.status.st_dev in {devices.get(p) for p in _MADE_UP}:
        raise InvalidInput(
            f"{path} is made up by the kernel when it is read", hint="Read it with `flota exec`"
        )
    foreign = set(devices.values()) - {root, source.status.st_dev}
    return Packer().run(_labelled(source, foreign))


def _stat(place: str) -> os.stat_result | None:
    try:
        return os.lstat(place)
    except OSError:
        return None


def _labelled(source: Source, foreign: set[int]) -> Iterator[Found]:
    """With the label before all names; none for `.`."""
    label = b"" if source.label == b"." else source.label
    if not stat.S_ISDIR(source.status.st_mode):
        yield Found("A", label, source.folder, source.name, source.status)
        return
    top = open_folder(source.folder, source.name)
    if top is None:
        return
    for found in walk(top, upper=False, foreign=foreign.__contains__):
        yield found._replace(path=b"/".join(part for part in (label, found.path) if part))
