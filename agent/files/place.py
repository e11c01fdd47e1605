"""Going into a container's root for good: after `enter` this process sees what the container sees, and can
name nothing else.

Invariant: the root is that of the container that was meant: a process id alone may be another's by now.
"""

from __future__ import annotations

import ctypes
import os

from agent.files.job import Bound, Place
from agent.inroot import make_directory, openat2
from agent.oci.cgroups import holds
from image.confine import into_root
from model.errors import InvalidInput, NotFound, WrongState

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def enter(place: Place) -> None:
    """Raises WrongState when the container has ended."""
    into_root(_of_process(place) if place.pid else _of_folder(place))


def _of_process(place: Place) -> int:
    """All is looked up by one open directory of /proc, which is one process's and never another's."""
    try:
        process = os.open(f"/proc/{place.pid}", _FOLDER)
        with open(os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)) as file:
            member = holds(file, place.container)
        if not member:
            raise ProcessLookupError
        # Held to this process's end: a container that ends would take its volumes away under us.
        os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        return os.open("root", _FOLDER, dir_fd=process)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise WrongState(f"container {place.name} ended just now", hint="Try again") from error


def _of_folder(place: Place) -> int:
    """In a mount namespace of its own, so that the mounts go with this process."""
    _check(_libc.unshare(_CLONE_NEWNS))
    _mount(None, b"/", _MS_REC | _MS_PRIVATE)
    for bound in place.mounts:
        root = os.open(place.folder, _FOLDER)
        try:
            _bind(root, bound)
        finally:
            os.close(root)
    try:
        return os.open(place.folder, _FOLDER)
    except FileNotFoundError as error:
        raise NotFound(f"container {place.name} has no files any more") from error


def _bind(root: int, bound: Bound) -> None:
    """A directory's target that is not there yet, as before a first start, is made, as a start does. Another
    that is missing hides nothing."""
    try:
        if os.path.isdir(bound.source):
            make_directory(f"/proc/self/fd/{root}", bound.target)
        target = openat2(root, bound.target, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError, InvalidInput):
        return
    try:
        _mount(os.fsencode(bound.source), b"/proc/self/fd/%d" % target, _MS_BIND | _MS_REC)
    finally:
        os.close(target)
    if bound.read_only:
        target = openat2(root, bound.target, os.O_PATH)
        try:
            _mount(None, b"/proc/self/fd/%d" % target, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
        finally:
            os.close(target)


def _mount(source: bytes | None, target: bytes, flags: int) -> None:
    _check(_libc.mount(source, target, None, flags, None))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
