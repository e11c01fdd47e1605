"""COPY, ADD and WORKDIR in a process of their own, told by one JSON line on stdin: `aio.warm` forks it.

All that it takes files from is open before it goes into the root that it writes to, for good. Invariants:
whatever links stand in the root or in a source, nothing outside can be named; of what fails half-way the
caller throws the root away.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import BinaryIO, Literal

import msgspec

from image.build import chmod, chown, select
from image.build.archives import Limits, is_archive, unpack
from image.build.base import Chosen, FileSource, RootSource, Source, TreeSource
from image.build.contentkey import ContentKey, left_out
from image.build.linking import linked
from image.build.places import MAX_DEPTH, Folder, Item, Missing, descend, find, parts_of
from image.build.rootplace import RootFolder
from image.build.select import Picked
from image.build.step import CopyStep, WorkdirStep
from image.build.target import Manner, Target
from image.build.treeplace import Objects, TreeFolder
from image.build.writing import Writer
from image.confine import die_with_parent, into_root
from image.dockerfile.patterns import Patterns
from model.errors import ErrorBody, Exhausted, FlotaError, Internal, InvalidInput
from model.spec import Struct

WARM = ("isal.igzip", "zstandard")
"""They can't be found any more once the process has another root."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_THREADS = 4


class Job(Struct):
    """`objects`: the object store's folder. `limits` are those of archives."""

    verb: Literal["choose", "copy"]
    step: CopyStep
    sources: tuple[Source, ...] = ()
    objects: str = ""
    root: str = ""
    limits: Limits = Limits()


class Result(Struct):
    chosen: Chosen | None = None
    error: ErrorBody | None = None


class Opened:
    """Sources, each opened once, with what of each is picked."""

    def __init__(self, step: CopyStep, sources: tuple[Source, ...], objects: str, stack: ExitStack) -> None:
        self._step = step
        self._stack = stack
        self._objects = objects
        self._known: dict[Source, Folder | int] = {}
        if len(sources) != len(step.sources):
            raise Internal(f"{len(step.sources)} sources and places for {len(sources)}")
        pairs = zip(step.sources, sources, strict=True)
        self.all = [(text, source, self._open(source)) for text, source in pairs]
        self.without = Patterns(step.exclude, where=lambda _: "--exclude") if step.exclude else None

    def _open(self, source: Source) -> Folder | int:
        known = self._known.get(source)
        if known is not None:
            return known
        place: Folder | int
        if isinstance(source, TreeSource):
            folder = os.open(self._objects, _FOLDER)
            self._stack.callback(os.close, folder)
            place = TreeFolder(Objects(folder), source.root)
        elif isinstance(source, RootSource):
            place = RootFolder(os.open(source.path, _FOLDER | os.O_NOFOLLOW))
            self._stack.callback(place.close)
        else:
            place = os.open(source.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._stack.callback(os.close, place)
        self._known[source] = place
        return place

    def picked(self, text: str, source: Source, top: Folder) -> list[Picked]:
        if isinstance(source, TreeSource) and source.whole:
            return [Picked((), b"", top.itself())]
        return select.with_parents(top, text) if self._step.parents else select.picked(top, text)


def choose(opened: Opened, step: CopyStep, pool: ThreadPoolExecutor | None = None) -> Chosen:
    """Raises NotFound, InvalidInput, Exhausted; also for an owner or mode that can't be."""
    if step.mode:
        chmod.parse(step.mode)
    if step.owner:
        _wish(step)
    key = ContentKey(pool)
    for text, source, place in opened.all:
        if isinstance(place, int):
            assert isinstance(source, FileSource)
            key.file(os.fsencode(source.name), source.mode, os.dup(place))
            continue
        for one in opened.picked(text, source, place):
            if not key.picked(place, one, opened.without) and one.required:
                raise select.absent(one.required)
    for file in step.inline:
        key.inline(os.fsencode(file.name), 0o644, file.content)
    return Chosen(key=key.value(), files=key.files, size=key.size)


def copy(opened: Opened, step: CopyStep, limits: Limits, now_ns: int) -> None:
    """Into this process's root. Raises FlotaError."""
    top = os.open("/", _FOLDER)
    octal = chmod.octal(step.mode) if step.mode else None
    manner = Manner(
        owner=chown.owner(_wish(step), reader(top)) if step.owner else None,
        change=chmod.parse(step.mode) if step.mode else None,
        parents=0o755 if octal is None else octal & 0o777,
        epoch_ns=_epoch_ns(step),
    )
    with linked(top) if step.link else contextlib.nullcontext(top) as inner:
        _Copy(opened, step, inner, manner, limits).run(now_ns)


def _epoch_ns(step: CopyStep | WorkdirStep) -> int | None:
    return None if step.epoch is None else step.epoch * 10**9


def _wish(step: CopyStep) -> chown.Wish:
    wish = chown.parse(step.owner)
    if step.link and wish.named:
        raise InvalidInput(
            f"--chown={step.owner} with --link: what is linked does not know the stage's users",
            hint="Give their numbers, or leave out --link",
        )
    return wish


def reader(top: int) -> Callable[[str], bytes]:
    """Files of an open root, at most `chown.MAX_FILE` bytes; empty for what is no regular file there."""

    def read(path: str) -> bytes:
        root = RootFolder(top)
        try:
            found = find(root, parts_of(os.fsencode(path)))
        except Missing:
            return b""
        if found.item.kind != "file":
            return b""
        folder = descend(root, found.parts[:-1])
        try:
            with open(folder.open(found.parts[-1]), "rb") as file:
                return file.read(chown.MAX_FILE)
        finally:
            if folder is not root:
                folder.close()

    return read


class _Copy:
    def __init__(self, opened: Opened, step: CopyStep, top: int, manner: Manner, limits: Limits) -> None:
        self._opened = opened
        self._step = step
        self._target = Target(top, manner)
        self._unpacking = Target(top, manner._replace(parents=0o755))
        """--chmod means nothing to an archive."""
        self._owner = manner.owner
        self._limits = limits

    def run(self, now_ns: int) -> None:
        step = self._step
        wanted = [
            (text, source, place, [] if isinstance(place, int) else self._opened.picked(text, source, place))
            for text, source, place in self._opened.all
        ]
        count = sum(1 if isinstance(place, int) else len(ones) for _, _, place, ones in wanted)
        writer = Writer(self._target, step.target, self._opened.without, several=count + len(step.inline) > 1)
        for text, source, place, ones in wanted:
            if isinstance(place, int):
                assert isinstance(source, FileSource)
                self._file(writer, text, source, place)
                continue
            whole = isinstance(source, TreeSource) and source.whole
            for one in ones:
                if not (whole or step.parents) and self._unpacked(place, one, text):
                    continue
                if not writer.picked(place, one, text) and one.required:
                    raise select.absent(one.required)
        for file in step.inline:
            item = Item("file", 0o644, mtime_ns=now_ns)
            writer.inline(os.fsencode(file.name), file.content, item)

    def _file(self, writer: Writer, text: str, source: FileSource, fd: int) -> None:
        if self._step.unpack and is_archive(fd):
            self._unpack(fd, text)
            return
        name = os.fsencode(source.name)
        if not left_out(name, self._opened.without):
            writer.file(name, fd, Item("file", source.mode, mtime_ns=source.mtime_ns))

    def _unpacked(self, top: Folder, one: Picked, text: str) -> bool:
        wanted = self._step.add if self._step.unpack is None else self._step.unpack
        if not wanted or one.item.kind != "file":
            return False
        folder = descend(top, one.parts[:-1])
        try:
            fd = folder.open(one.parts[-1])
        finally:
            if folder is not top:
                folder.close()
        try:
            if not is_archive(fd):
                return False
            self._unpack(fd, text)
            return True
        finally:
            os.close(fd)

    def _unpack(self, fd: int, text: str) -> None:
        with self._unpacking.spot(self._step.target, folder=True) as spot:
            unpack(fd, spot.here.fd, text, self._owner, self._limits)


def make_workdir(root: str, step: WorkdirStep) -> bool:
    """Whether anything had to be made. Needs no process of its own: no content is read but the names of
    users. Raises InvalidInput, NotFound."""
    top = os.open(root, _FOLDER)
    try:
        owner = chown.owner(chown.parse(step.owner, "USER"), reader(top), "USER") if step.owner else None
        target = Target(top, Manner(owner=owner, epoch_ns=_epoch_ns(step)))
        with target.spot(step.path, folder=True):
            return target.made > 0
    finally:
        os.close(top)


@contextlib.contextmanager
def opened(job: Job) -> Iterator[Opened]:
    with ExitStack() as stack:
        yield Opened(job.step, job.sources, job.objects, stack)


def run(job: Job, now_ns: int) -> Result:
    """In this process, which gives up its root for it."""
    for module in WARM:
        importlib.import_module(module)
    with opened(job) as sources:
        if job.verb == "choose":
            roots = (source.path for source in job.sources if isinstance(source, RootSource))
            into_root(next(roots, job.objects))
            with ThreadPoolExecutor(_THREADS) as pool:
                return Result(chosen=choose(sources, job.step, pool))
        into_root(job.root, again=job.step.add)
        copy(sources, job.step, job.limits, now_ns)
        return Result()


def main(stdin: BinaryIO, stdout: BinaryIO) -> int:
    import time

    die_with_parent()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setrecursionlimit(8 * MAX_DEPTH)  # a few calls for each folder
    job = msgspec.msgpack.decode(stdin.read(), type=Job)
    name = "ADD" if job.step.add else "COPY"
    try:
        result = run(job, time.time_ns())
    except FlotaError as error:
        result = Result(error=ErrorBody.of(error))
    except MemoryError:
        result = Result(error=ErrorBody.of(Exhausted(f"{name}: it needs more memory than there is for it")))
    except Exception as error:
        result = Result(error=ErrorBody.of(Internal(f"{name}: {type(error).__name__}: {error}")))
    stdout.write(msgspec.json.encode(result))
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
