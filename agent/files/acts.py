"""Acts on the files of one container: copy in and out, compare, export, make an image of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
from msgspec.structs import replace

from agent import assemble, freeze
from agent.context import Context
from agent.files import work
from agent.files.config import command, image_config
from agent.files.job import Bound, Job, Place
from agent.record import Local
from aio.piped import Piped
from image import changes as instructions
from image.commit import Commit
from image.reference import parse
from model.containerfiles import Change, CommitRequest, PathStat
from model.errors import ErrorBody, FlotaError, NotFound, WrongState
from model.image import ImageRecord, Origin
from model.records import Instance
from model.spec import Mount
from model.streams import ERROR, STDOUT, Exit

PATIENCE = 5.0
"""Seconds that a client may take to notice that its copy failed."""
QUIET = (
    "dev", "dev/console", "dev/mqueue", "dev/pts", "dev/shm", "etc", "etc/hostname", "etc/hosts",
    "etc/resolv.conf", "proc", "sbin", "sbin/docker-init", "sys", "sys/fs", "sys/fs/cgroup",
)  # fmt: skip
"""Mount points that every container gets (`agent.oci.mounts`), and the directories they are in."""


class Files:
    """Of one container: `record` and `want` give what is known of it now."""

    def __init__(
        self, context: Context, record: Callable[[], Local], want: Callable[[], Instance | None]
    ) -> None:
        self._context = context
        self._record = record
        self._want = want

    @property
    def _name(self) -> str:
        want = self._want()
        return want.name if want is not None else self._record().instance[:12]

    # -- copies -------------------------------------------------------------------------------------
    async def stat(self, path: str) -> PathStat:
        async with self._place() as place:
            return await work.stat(Job(verb="stat", place=place, path=path))

    async def get(self, path: str) -> AsyncIterator[tuple[int, bytes]]:
        async with self._place() as place:
            async for data in work.output(Job(verb="get", place=place, path=path)):
                yield STDOUT, data
        self._whole()

    async def put(self, path: str, *, replace: bool) -> PutSession:
        stack = AsyncExitStack()
        try:
            place = await stack.enter_async_context(self._place())
            job = Job(verb="put", place=place, path=path, replace=replace)
            piped = await stack.enter_async_context(work.started(job))
        except BaseException:
            await stack.aclose()
            raise
        return PutSession(piped, stack)

    async def export(self) -> AsyncIterator[tuple[int, bytes]]:
        """The root's own files, without what is mounted there."""
        self._rooted()
        record = self._record()
        async with self._context.images.borrow_root(record.instance) as root:
            place = Place(container=record.instance, name=self._name, folder=root.path)
            async for data in work.output(Job(verb="tree", place=place)):
                yield STDOUT, data
        self._whole()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[Place]:
        """Of a container that lives what it sees itself; else its root and what would be mounted there. Also
        the root of one that lives is borrowed: should it start again while this goes on, its old mount is
        held to the end, and a new one beside it would write to the same layer."""
        self._rooted()
        async with self._context.images.borrow_root(self._record().instance) as root:
            record, want = self._record(), self._want()
            if record.live and record.created is not None:
                yield Place(container=record.instance, name=self._name, pid=record.created.pid)
                return
            volumes = record.volumes or await self._first_volumes(record, want, root.path)
            yield Place(
                container=record.instance,
                name=self._name,
                folder=root.path,
                mounts=self._mounts(volumes, want.spec.mounts if want is not None else ()),
                read_only=want is not None and want.spec.read_only,
            )

    async def _first_volumes(
        self, record: Local, want: Instance | None, root: str
    ) -> tuple[tuple[str, str], ...]:
        """Those of a container that never started, made and filled now: what is copied into them is there at
        its start, which finds them again. Raises NotFound when it is being removed."""
        if want is None:
            return ()
        image = self._context.images.find(record.image_id).config
        own = tuple(mount for mount in want.spec.mounts if mount.type == "volume")
        others = {os.path.normpath(mount.target) for mount in want.spec.mounts} - {
            os.path.normpath(mount.target) for mount in own
        }
        image = replace(image, volumes=tuple(t for t in image.volumes if os.path.normpath(t) not in others))
        if not own and not image.volumes:
            return ()
        wish = replace(want, spec=replace(want.spec, mounts=own))
        made = await assemble.mounts_of(self._context, wish, image, root)
        if self._want() is None:  # whoever removes it may not have seen those that were made just now
            await self._context.volumes.remove_anonymous(record.instance)
            raise NotFound(f"container {self._name} is being removed")
        return made.volumes

    def _mounts(self, named: tuple[tuple[str, str], ...], wishes: tuple[Mount, ...]) -> tuple[Bound, ...]:
        """Binds and volumes (name, target), parents first; a tmpfs is empty while nothing runs."""
        volumes = self._context.volumes
        switched = {mount.target: mount.read_only for mount in wishes}
        bounds = [
            Bound(source=m.source, target=m.target, read_only=m.read_only) for m in wishes if m.type == "bind"
        ]
        for name, target in named:
            read_only = switched.get(target, False)
            bounds.append(Bound(source=volumes.path(name), target=target, read_only=read_only))
        return tuple(sorted(bounds, key=lambda bound: bound.target.count("/")))

    def _whole(self) -> None:
        """What was read of a container that was removed meanwhile may lack anything. Raises NotFound."""
        self._context.images.changed(self._record().instance)

    def _rooted(self) -> None:
        if not self._record().rooted:
            raise WrongState(f"container {self._name} has no files yet", hint="See `flota why`")

    # -- changes ------------------------------------------------------------------------------------
    async def changes(self) -> AsyncIterator[Change]:
        self._rooted()
        record = self._record()
        changed, lower = self._context.images.changed(record.instance)
        place = Place(container=record.instance, name=self._name)
        changed = replace(changed, quiet=QUIET)
        job = Job(verb="changes", place=place, changed=changed, lower=lower)
        rest = b""
        async with AsyncExitStack() as stack:
            if changed.whole:
                await stack.enter_async_context(self._context.images.borrow_root(record.instance))
            async for data in work.output(job):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield msgspec.json.decode(line, type=Change)
        self._whole()

    async def commit(self, request: CommitRequest) -> ImageRecord:
        """Raises InvalidInput before anything is done."""
        self._rooted()
        want, record = self._want(), self._record()
        if want is None:
            raise NotFound(f"container {self._name} is being removed")
        if request.ref:
            parse(request.ref)
        image = self._context.images.find(record.image_id).config
        wish = Commit(
            config=instructions.apply(image_config(want.spec, image), request.changes),
            ref=request.ref,
            author=request.author,
            message=request.message,
            created_by=command(want.spec, image),
            origin=Origin(parent=record.image_id, container=record.instance, image=want.spec.image),
            at=self._context.clock.now(),
            quiet=QUIET,
        )
        async with AsyncExitStack() as stack:
            if request.pause:
                await stack.enter_async_context(freeze.still(self._context, self._record))
            return await self._context.images.commit(record.instance, wish)


class PutSession:
    """A tar on its way into a container, as `api.ports.AttachSession`: written, and over once it is in."""

    def __init__(self, piped: Piped, stack: AsyncExitStack) -> None:
        self._piped = piped
        self._stack = stack
        self._failed = False
        self._sent = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        """Waits for the end. What it failed with is an item, after which the client's end is waited for: on a
        connection that is closed on what it still sends, the words could be lost."""
        if self._failed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._sent.wait()
            return None
        while await self._piped.read():
            pass
        try:
            await work.ended(self._piped)
        except FlotaError as error:
            self._failed = True
            return ERROR, msgspec.json.encode(ErrorBody.of(error))
        return None

    async def write(self, data: bytes) -> None:
        await self._piped.write(data)

    async def close_stdin(self) -> None:
        self._piped.close_stdin()
        self._sent.set()

    async def resize(self, rows: int, cols: int) -> None:
        del rows, cols

    async def signal(self, signal: int) -> None:
        del signal

    async def finish(self) -> Exit:
        return Exit(exit_code=0)

    async def close(self) -> None:
        await self._stack.aclose()
