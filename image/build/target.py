"""Where a COPY writes: paths in a root that this process has gone into, and the files it makes there.

Links on the way are followed as if the root were `/`, as the container would; the last part of what is
written never is. Invariants: each name is looked up in a directory that is held open, so nothing leads out of
`top`; what a directory got is set after its content, so that its time stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

from image.build import copyplan
from image.build.chmod import ModeChange
from image.build.chown import Owner
from image.build.content import copy_content
from image.build.copyplan import Standing
from image.build.places import MAX_LINKS, Folder, Item, parts_of, shown
from image.walk import look
from model.errors import Exhausted, InvalidInput, Unsupported

MAX_ENTRIES = 4_000_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_HIDE = b".wh."
_EARLIEST, _LATEST = -(1 << 31) * 10**9, (1 << 33) * 10**9
_FIRST_MODE = 0o700
_MAX_PATH = 4000


class Manner(NamedTuple):
    """How things are made. `parents`: mode of directories that the target's path needs."""

    owner: Owner | None = None
    change: ModeChange | None = None
    parents: int = 0o755
    epoch_ns: int | None = None
    """Nothing has a later time."""

    def time(self, mtime_ns: int) -> int:
        mtime_ns = max(_EARLIEST, min(mtime_ns, _LATEST))
        return mtime_ns if self.epoch_ns is None else min(mtime_ns, self.epoch_ns)


class Here(NamedTuple):
    """An open directory of the root. `path` leads to it from the top without a link, and is empty or ends
    with a slash."""

    fd: int
    path: bytes = b""

    def below(self, fd: int, name: bytes) -> Here:
        return Here(fd, self.path + name + b"/")


class Spot(NamedTuple):
    """`name` in a directory, or with an empty name that itself."""

    here: Here
    name: bytes


class Target:
    """`top` is an open directory, the root; it stays open."""

    def __init__(self, top: int, manner: Manner) -> None:
        self._top = top
        self._manner = manner
        self._links: dict[Hashable, bytes] = {}
        self.entries = 0
        self.made = 0
        """Directories made on the way to targets."""

    # -- the way there ------------------------------------------------------------------------------
    @contextlib.contextmanager
    def spot(self, path: str, *, folder: bool) -> Iterator[Spot]:
        """Where a path leads, with the directories above it made; `folder`: it is one itself, made too.
        Raises InvalidInput where something else stands in the way."""
        stack, links = [Here(os.dup(self._top))], 0
        before = self.made
        rest = list(reversed(parts_of(os.fsencode(path))))
        try:
            while rest:
                part, here = rest.pop(), stack[-1]
                if part == b"..":
                    _up(stack)
                    continue
                with told(here, part):
                    status = look(here.fd, part)
                if status is not None and stat.S_ISLNK(status.st_mode):
                    links += 1
                    if links > MAX_LINKS:
                        raise InvalidInput(f"{path}: its links in the stage lead in a circle")
                    target = os.readlink(part, dir_fd=here.fd)
                    while target.startswith(b"/") and _up(stack):
                        pass
                    rest += [name for name in reversed(target.split(b"/")) if name not in (b"", b".")]
                    continue
                if not rest and not folder:
                    yield Spot(here, part)
                    self._settle(stack, self.made - before)
                    return
                with told(here, part):
                    stack.append(here.below(self._enter(here.fd, part, status, path), part))
            yield Spot(stack[-1], b"")
            self._settle(stack, self.made - before)
        finally:
            for here in stack:
                os.close(here.fd)

    def _enter(self, folder: int, part: bytes, status: os.stat_result | None, path: str) -> int:
        if status is not None:
            if not stat.S_ISDIR(status.st_mode):
                raise InvalidInput(
                    f"{path}: {shown(part)} in the stage is no directory",
                    hint="Name another target, or remove what stands there by a RUN before",
                )
            return os.open(part, _FOLDER, dir_fd=folder)
        return self.parent(folder, part)

    def parent(self, folder: int, name: bytes) -> int:
        """A new directory that a target's path needs; it is open."""
        _check_name(name)
        os.mkdir(name, _FIRST_MODE, dir_fd=folder)
        fd = os.open(name, _FOLDER, dir_fd=folder)
        owner = self._manner.owner or Owner(0, 0)
        os.fchown(fd, *owner)
        os.fchmod(fd, self._manner.parents)
        self.made += 1
        return fd

    def _settle(self, stack: Sequence[Here], made: int) -> None:
        """Times of directories that were made on the way, and of the one that was written to."""
        if self._manner.epoch_ns is None:
            return
        for here in stack[-max(made, 1) :]:
            self.set_time(here.fd, os.fstat(here.fd).st_mtime_ns)

    # -- entries ------------------------------------------------------------------------------------
    def entry(self, source: Folder, name: bytes, item: Item, here: Here, label: bytes) -> None:
        """Anything but a directory, as `label` in a directory; it takes the place of what stands there."""
        self.count(label)
        with told(here, label):
            if item.kind == "file":
                self._file(source, name, item, here, label)
            else:
                self._special(item, here, label)

    def inline(self, content: bytes, item: Item, here: Here, label: bytes) -> None:
        """A new file of that content."""
        self.count(label)
        with told(here, label):
            fd = self._new(here, label)
            try:
                with open(fd, "wb", closefd=False) as file:
                    file.write(content)
                self.finish(fd, item, {})
            finally:
                os.close(fd)

    def opened(self, source: int, item: Item, here: Here, label: bytes) -> None:
        """What is in an open regular file."""
        self.count(label)
        with told(here, label):
            self._written(source, item, {}, here, label)

    def count(self, label: bytes) -> None:
        """Raises Exhausted, and Unsupported for a name that no layer can hold."""
        _check_name(label)
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise Exhausted(f"more than {MAX_ENTRIES} files are to be copied")

    def new_source(self) -> None:
        """Names of one file are kept as such within one source alone, as Docker does."""
        self._links.clear()

    def _file(self, source: Folder, name: bytes, item: Item, here: Here, label: bytes) -> None:
        known = self._links.get(item.same) if item.same is not None else None
        if known is not None and self._linked(known, here, label):
            return
        fd = source.open(name)
        try:
            self._written(fd, item, source.xattrs(name, fd), here, label)
        finally:
            os.close(fd)
        if item.same is not None and len(here.path) + len(label) < _MAX_PATH:
            self._links[item.same] = here.path + label

    def _linked(self, known: bytes, here: Here, label: bytes) -> bool:
        """False: the file system takes no more names of that file."""
        self._make_room(here, label)
        try:
            os.link(known, label, src_dir_fd=self._top, dst_dir_fd=here.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            return False
        return True

    def _written(
        self, source: int, item: Item, xattrs: Mapping[str, bytes], here: Here, label: bytes
    ) -> None:
        fd = self._new(here, label)
        try:
            copy_content(source, fd)
            self.finish(fd, item, xattrs)
        finally:
            os.close(fd)

    def _new(self, here: Here, label: bytes) -> int:
        try:
            return os.open(label, _NEW, 0o600, dir_fd=here.fd)
        except FileExistsError:
            self._make_room(here, label)
            return os.open(label, _NEW, 0o600, dir_fd=here.fd)

    def _make_room(self, here: Here, label: bytes) -> None:
        where = "/" + shown(here.path + label)
        if copyplan.replace(where, folder=False, standing=standing(here, label)):
            os.unlink(label, dir_fd=here.fd)

    def _special(self, item: Item, here: Here, label: bytes) -> None:
        self._make_room(here, label)
        if item.kind == "link":
            os.symlink(item.target, label, dir_fd=here.fd)
        elif item.kind == "fifo":
            os.mkfifo(label, 0o600, dir_fd=here.fd)
        elif item.kind == "socket":  # as Docker's: an empty file stands for it
            os.close(os.open(label, _NEW, 0o600, dir_fd=here.fd))
        else:
            if item.device == 0:
                raise InvalidInput(f"{shown(label)} is a device 0:0, which no layer can hold")
            kind = stat.S_IFCHR if item.kind == "char" else stat.S_IFBLK
            os.mknod(label, kind | 0o600, item.device, dir_fd=here.fd)
        owner = self._manner.owner or Owner(item.uid, item.gid)
        os.chown(label, *owner, dir_fd=here.fd, follow_symlinks=False)
        if item.kind != "link":
            os.chmod(label, self._mode(item), dir_fd=here.fd)
        time = self._manner.time(item.mtime_ns)
        os.utime(label, ns=(time, time), dir_fd=here.fd, follow_symlinks=False)

    # -- attributes ---------------------------------------------------------------------------------
    def finish(self, fd: int, item: Item, xattrs: Mapping[str, bytes]) -> None:
        """Give an open file or directory what it is to have: owner first (it clears setuid and capabilities),
        times last."""
        owner = self._manner.owner or Owner(item.uid, item.gid)
        os.fchown(fd, *owner)
        for key, value in xattrs.items():
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:  # of a file system without them, Docker's rule too
                    raise
        os.fchmod(fd, self._mode(item))
        self.set_time(fd, item.mtime_ns)

    def set_time(self, fd: int, mtime_ns: int) -> None:
        time = self._manner.time(mtime_ns)
        os.utime(fd, ns=(time, time))

    def _mode(self, item: Item) -> int:
        change = self._manner.change
        return item.mode if change is None else change(item.mode, item.kind == "dir")


def standing(here: Here, name: bytes) -> Standing:
    """What stands there; with an empty name, of the directory itself."""
    if not name:
        return "dir"
    status = look(here.fd, name)
    if status is None:
        return "nothing"
    return "dir" if stat.S_ISDIR(status.st_mode) else "other"


@contextlib.contextmanager
def told(here: Here, name: bytes) -> Iterator[None]:
    """Errors of system calls as ours, with the place."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Exhausted("no space is left on the host's disk for what is copied") from error
        raise InvalidInput(f"/{shown(here.path + name)} in the stage: {error.strerror}") from error
    except ValueError as error:  # a zero byte in a link or an attribute
        raise InvalidInput(f"/{shown(here.path + name)} in the stage can't be made: {error}") from error


def _up(stack: list[Here]) -> bool:
    """False at the top."""
    if len(stack) > 1:
        os.close(stack.pop().fd)
        return True
    return False


def _check_name(name: bytes) -> None:
    """Of one entry: also those that a URL or a heredoc gave."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidInput(
            f"{shown(name)!r} is no name of a file", hint="Give the target a name, without a slash at its end"
        )
    if name.startswith(_HIDE):
        raise Unsupported(
            f"{shown(name)} has a name that no layer can hold: .wh. marks removed files",
            hint="Rename it, or leave it out by --exclude or .dockerignore",
        )
