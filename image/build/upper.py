"""An overlay's upper directory made fit to be a layer: without what a step did not mean to change.

A directory that was only passed through (a mount point was made in it, and taken away) is copied up and stays
so; in a layer it would be a change of nothing. Declared volumes get back what they had. Invariants: nothing
is found by a path that a link could lead astray; a directory in which something was taken away keeps its
times. Blocking.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from image.difference import Level, same
from image.lower import LowerLayers
from image.trash import deletion_in
from image.walk import Found, look, open_folder, xattr

_OPAQUE = "trusted.overlay.opaque"
MAX_DEPTH = 512
MAX_LINKS = 40
"""That a volume's path may lead through: path_resolution(7)."""


def tidy(upper: str, lower: Sequence[str], discarded: Sequence[str] = ()) -> None:
    """`lower` are the directories of the layers below, top first; `discarded` absolute paths. Raises
    OSError."""
    layers = LowerLayers(lower)
    top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for path in discarded:
            _discard(top, [os.fsencode(part) for part in path.split("/") if part], layers)
        below = Level([os.dup(fd) for fd in layers.fds])
        try:
            _prune(top, below, 0)
        finally:
            below.close()
    finally:
        os.close(top)
        layers.close()


def settled_path(root: str, path: str) -> str:
    """Where an absolute path of a mounted root leads through the links of that root, of which nobody changes
    any meanwhile. Never out of it; as it is, behind more links than a name may have."""
    done: list[str] = []
    rest = [part for part in path.split("/") if part][::-1]
    links = 0
    while rest:
        part = rest.pop()
        if part in (".", ".."):
            del done[-1 if part == ".." else len(done) :]
            continue
        try:
            target = os.readlink("/".join((root, *done, part)))
        except OSError:  # no link, or nothing at all
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            return path
        done = [] if target.startswith("/") else done
        rest += [one for one in target.split("/") if one][::-1]
    return "/" + "/".join(done)


def age(upper: str, latest: int) -> None:
    """Whatever is younger gets that time, in Unix seconds. Raises OSError."""
    top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _age(top, latest * 1_000_000_000, 0)
    finally:
        os.close(top)


def _age(here: int, most: int, depth: int) -> None:
    """Not deeper than a layer may be: whoever makes it one refuses what is."""
    for name in os.listdir(here) if depth <= MAX_DEPTH else ():
        fd = open_folder(here, os.fsencode(name))
        if fd is not None:
            try:
                _age(fd, most, depth + 1)
            finally:
                os.close(fd)
        elif os.lstat(name, dir_fd=here).st_mtime_ns > most:
            os.utime(name, ns=(most, most), dir_fd=here, follow_symlinks=False)
    if os.fstat(here).st_mtime_ns > most:
        os.utime(here, ns=(most, most))


def _discard(top: int, parts: list[bytes], layers: LowerLayers) -> None:
    """What lies in the upper directory at that path, and in it."""
    here, hidden = os.dup(top), False
    try:
        for part in parts[:-1]:
            found = open_folder(here, part)
            if found is None:  # not there, or a link, which leads to no volume
                return
            os.close(here)
            here = found
            hidden = hidden or xattr(here, _OPAQUE) == b"y"
        status = look(here, parts[-1]) if parts else None
        if status is None:
            return
        shown = None if hidden else layers.find(b"/" + b"/".join(parts))
        with _same_times(here):
            if shown is not None:
                deletion_in(here, parts[-1])
            elif stat.S_ISDIR(status.st_mode):
                _empty(here, parts[-1])
    finally:
        os.close(here)


def _empty(folder: int, name: bytes) -> None:
    fd = open_folder(folder, name)
    if fd is None:
        return
    try:
        with _same_times(fd):
            for inner in os.listdir(fd):
                deletion_in(fd, os.fsencode(inner))
    finally:
        os.close(fd)


def _prune(here: int, below: Level, depth: int) -> None:
    """Take away directories that are as they were and have nothing in them. Only those are entered that
    there are below too."""
    if depth > MAX_DEPTH:
        return
    for name in [os.fsencode(entry.name) for entry in _folders(here)]:
        entry = below.find(name)
        was = below.enter(name) if entry is not None else None
        if entry is None or was is None:
            continue
        try:
            fd = open_folder(here, name)
            if fd is None:
                continue
            try:
                if xattr(fd, _OPAQUE):
                    continue
                _prune(fd, was, depth + 1)
                status = os.fstat(fd)
                bare = not os.listdir(fd)
            finally:
                os.close(fd)
            if bare and same(Found("C", name, here, name, status), entry, times=True):
                with _same_times(here):
                    os.rmdir(name, dir_fd=here)
        finally:
            was.close()


def _folders(here: int) -> list[os.DirEntry[str]]:
    with os.scandir(here) as entries:
        return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]


@contextmanager
def _same_times(fd: int) -> Iterator[None]:
    before = os.fstat(fd)
    try:
        yield
    finally:
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
