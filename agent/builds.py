"""The builds of this host: what they share, and the life of each, from its connection to its outputs.

Invariant: a build holds the objects that it received, and nothing of it outlives its connection but layers,
cache records and the images that it was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager

from msgspec.structs import replace

from agent.build.executor import Executor
from agent.build.link import Link
from agent.build.outputs import Outputs, names_kept
from agent.build.runner import Runner
from agent.build.session import serve
from agent.context import Context
from agent.runtime.argv import Programs
from aio.sharing import SharedLocks
from image.build.base import Fetcher, FileSource, Session, Snapshots
from image.build.cache import Cache
from image.build.copying import Copying
from image.build.engine import Parts, build
from image.context.find import find, regular
from image.context.objects import Lease, Objects, room
from image.context.receive import received
from image.dockerfile.check import as_errors, check
from image.dockerfile.parser import parse
from image.platforms import host_platform
from model.build import BuildRequest, BuildWarning, Done, FromHost, StepBegan, StepEnded, StepMoved
from model.build import Context as Place
from model.errors import InvalidInput, Unsupported
from model.ids import IdSource

MAX_DOCKERFILE = 1 << 20
"""Bytes of one that is read from a context here."""


class Builds:
    """`open` it after the agent's runtime has adopted what runs; `close` it at the end."""

    def __init__(
        self, context: Context, programs: Programs, snapshots: Snapshots, cache: Cache, new_id: IdSource
    ) -> None:
        folder = context.state / "images" / "contexts"
        self.objects = Objects(folder)
        self.executor = Executor(context, programs)
        self.context = context
        self.snapshots = snapshots
        self.cache = cache
        self.new_id = new_id
        self.copying = Copying(str(folder))
        self.slots = asyncio.Semaphore(max(16, 4 * (os.cpu_count() or 1)))  # most of them wait
        self.turns = SharedLocks()
        self.running = 0
        self.last = 0.0
        """When the last build ended, unix seconds."""
        self._folder = str(folder)

    async def open(self) -> None:
        await asyncio.to_thread(self.objects.open)
        await self.executor.open()

    async def close(self) -> None:
        await self.copying.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One build, until it is over or its client has gone."""
        self.running += 1
        try:
            with self.objects.leased(room(self._folder)) as lease:
                one = _Build(self, lease)
                await serve(reader, writer, one.run, one.bring)
        finally:
            self.running -= 1
            self.last = self.context.clock.now()


class _Build:
    def __init__(self, builds: Builds, lease: Lease) -> None:
        self._builds = builds
        self._lease = lease
        self._steps = 0

    async def bring(self, link: Link, context: str, paths: Sequence[str]) -> str:
        """The objects of a client's context, as a step."""
        what = f" {context}" if context else ""
        with self._told(link.tell, f"[internal] load build context{what}") as step:

            def moved(size: int) -> None:
                link.tell(StepMoved(step=step, what="transferring", current=size))

            def warned(warnings: tuple[str, ...]) -> None:
                for words in warnings:
                    link.tell(BuildWarning(code="ContextFileSkipped", message=words))

            return await received(
                link, self._builds.objects, self._lease, context, paths, moved=moved, warned=warned
            )

    @contextlib.contextmanager
    def _told(self, tell: Callable[[FromHost], None], name: str) -> Iterator[int]:
        """A step that the Dockerfile does not have; these are numbered apart, below zero."""
        clock = self._builds.context.clock
        self._steps -= 1
        step, began, error = self._steps, clock.monotonic(), "cancelled"
        tell(StepBegan(step=step, name=name, at=clock.now()))
        try:
            yield step
            error = ""
        except Exception as failure:
            error = str(failure)
            raise
        finally:
            tell(StepEnded(step=step, seconds=clock.monotonic() - began, error=error))

    async def run(self, request: BuildRequest, session: Session) -> Done:
        fetcher = _Once(NoFetcher())
        request = await self._with_dockerfile(request, fetcher)
        if judged(request, session):
            return Done()
        builds = self._builds
        async with Runner(
            builds.executor, builds.copying, allow=request.allow, new_id=builds.new_id
        ) as runner:
            parts = Parts(
                images=builds.context.images,
                snapshots=builds.snapshots,
                runner=runner,
                cache=builds.cache,
                fetcher=fetcher,
                clock=builds.context.clock,
                new_id=builds.new_id,
                platform=host_platform(),
                slots=builds.slots,
                turns=builds.turns,
            )
            done = await build(names_kept(request), session, parts)
        outputs = Outputs(
            builds.context, builds.snapshots, session, lambda name: self._told(session.tell, name)
        )
        done = await outputs.deliver(request, done)
        return replace(done, host=builds.context.facts.hostname)

    async def _with_dockerfile(self, request: BuildRequest, fetcher: Fetcher) -> BuildRequest:
        """Of a context that the client does not have it is read here. Raises NotFound, InvalidInput."""
        main = next((place for place in request.contexts if not place.name), None)
        if request.dockerfile or main is None or main.kind not in ("git", "http"):
            return request
        root = await fetcher.context(main, private=request.private_addresses)
        objects = self._builds.objects
        entry = regular(find(objects.tree, root, request.file), request.file, MAX_DOCKERFILE)
        return replace(request, dockerfile=objects.read(entry.digest, MAX_DOCKERFILE))


def judged(request: BuildRequest, session: Session) -> bool:
    """Tell what the Dockerfile had better do otherwise; whether that was all that was asked for. Raises
    DockerfileFault, and InvalidInput where the file itself wants no findings."""
    dockerfile = parse(request.dockerfile, file=request.file)
    found = check(dockerfile, with_habits=request.check)
    for warned in found:
        session.tell(
            BuildWarning(
                code=warned.code,
                message=warned.message,
                line=warned.spot.line,
                column=warned.spot.column,
                hint=warned.hint,
            )
        )
    if found and (request.check or as_errors(dockerfile)):
        count = f"{len(found)} finding{'s' if len(found) > 1 else ''}"
        raise InvalidInput(f"{request.file}: the check has {count}")
    return request.check


class _Once:
    """A Fetcher that gets a context once for a build."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._roots: dict[str, str] = {}

    async def context(self, context: Place, *, private: bool = False) -> str:
        if context.name not in self._roots:
            self._roots[context.name] = await self._fetcher.context(context, private=private)
        return self._roots[context.name]

    def file(
        self, url: str, *, checksum: str = "", private: bool = False
    ) -> AbstractAsyncContextManager[FileSource]:
        return self._fetcher.file(url, checksum=checksum, private=private)

    async def git(
        self, url: str, *, checksum: str = "", keep_git_dir: bool = False, private: bool = False
    ) -> str:
        return await self._fetcher.git(url, checksum=checksum, keep_git_dir=keep_git_dir, private=private)


class NoFetcher:
    async def context(self, context: Place, *, private: bool = False) -> str:
        raise Unsupported("contexts from the network")

    @contextlib.asynccontextmanager
    async def file(self, url: str, *, checksum: str = "", private: bool = False) -> AsyncIterator[FileSource]:
        raise Unsupported("files from the network")
        yield FileSource(path="", name="")  # a generator must have one

    async def git(
        self, url: str, *, checksum: str = "", keep_git_dir: bool = False, private: bool = False
    ) -> str:
        raise Unsupported("git repositories")
