"""The builds of this host: what they share, and the life of each, from its connection to its outputs.

Invariant: a build holds the objects that it received, and nothing of it outlives its connection but layers,
cache records and the images that it was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from msgspec.structs import replace

from agent.build.executor import Executor
from agent.build.folder import ClientFolder
from agent.build.link import Link
from agent.build.outputs import Outputs, names_kept, stays
from agent.build.outputs import check as check_outputs
from agent.build.passing import Passing
from agent.build.runner import Runner
from agent.build.session import has, serve
from agent.build.spec import entitlements
from agent.context import Context
from agent.runtime.argv import Programs
from aio.sharing import SharedLocks
from aio.supervisor import in_thread
from image.base import nobody
from image.build.base import Fetcher, Material, Session, Snapshots
from image.build.cache import Cache
from image.build.cacheways import CacheWays
from image.build.clientlayout import Layouts
from image.build.copying import Copying
from image.build.engine import build
from image.build.parts import Parts
from image.build.telling import Teller
from image.context.fetcher import BuildFetcher
from image.context.find import find, regular
from image.context.guard import Guard
from image.context.ignored import without_ignored
from image.context.objects import Lease, Objects
from image.context.receive import received, streamed
from image.dockerfile.check import as_errors, check
from image.dockerfile.instruction import Dockerfile
from image.dockerfile.parser import parse
from image.platforms import host_platform
from image.sbom.scanner import Scanner
from image.store import ImageStore
from model.build import (
    BuildRequest,
    BuildWarning,
    Done,
    FromHost,
    Instructed,
    Outline,
    StepBegan,
    StepEnded,
    StepMoved,
)
from model.build import Context as Place
from model.errors import InvalidInput
from model.ids import IdSource
from model.whereabouts import parted

FIRST_OF_CACHES = -1_000_000
"""Number of the first step that is about other caches; those of contexts are below 0 too."""
MAX_TOLD = 1000
"""Characters of an instruction in an outline."""
MAX_DOCKERFILE = 1 << 20
"""Bytes of one that is read from a context here."""

Doors = Callable[[], Awaitable[Collection[tuple[str, int]]]]
"""Addresses and ports that no build may fetch from."""


class Builds:
    """`open` it after the agent's runtime has adopted what runs; `close` it at the end."""

    def __init__(
        self,
        context: Context,
        programs: Programs,
        snapshots: Snapshots,
        cache: Cache,
        new_id: IdSource,
        doors: Doors,
    ) -> None:
        folder = context.state / "images" / "contexts"
        self.objects = Objects(folder)
        self.executor = Executor(context, programs)
        self.context = context
        self.snapshots = snapshots
        self.cache = cache
        self.new_id = new_id
        self.doors = doors
        self.copying = Copying(str(folder))
        self.scanner = Scanner()
        self.passing = Passing(context.images)
        self.slots = asyncio.Semaphore(max(16, 4 * (os.cpu_count() or 1)))  # most of them wait
        self.turns = SharedLocks()
        self.running = 0
        self.last = 0.0
        """When the last build ended, unix seconds."""

    async def open(self) -> None:
        await asyncio.to_thread(self.objects.open)
        await self.executor.open()

    async def close(self) -> None:
        await self.copying.close()
        await self.scanner.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One build, until it is over or its client has gone."""
        lease = self.objects.lease(self.objects.room())
        self.running += 1
        try:
            one = _Build(self, lease)
            await serve(reader, writer, one.run, one.bring, sockets=self.executor.folder)
        finally:
            self.running -= 1
            await in_thread(lease.close)  # many files may go
            self.last = self.context.clock.now()


class _Build:
    def __init__(self, builds: Builds, lease: Lease) -> None:
        self._builds = builds
        self._lease = lease
        self._steps = 0
        self._tars: dict[str, str] = {}
        """Roots of contexts that come as a stream, empty while that is to come."""
        self._layouts: frozenset[str] = frozenset()
        """Contexts of which single files are read, within steps of others."""

    async def bring(self, link: Link, context: str, paths: Sequence[str]) -> str:
        """The objects of a client's context, as a step."""
        if self._tars.get(context):
            return self._tars[context]
        if context in self._layouts:
            return await received(link, self._builds.objects, self._lease, context, paths)
        what = f" {context}" if context else ""
        with self._told(link.tell, f"[internal] load build context{what}") as step:

            def moved(size: int) -> None:
                link.tell(StepMoved(step=step, what="transferring", current=size))

            def warned(warnings: tuple[str, ...]) -> None:
                for words in warnings:
                    link.tell(BuildWarning(code="ContextFileSkipped", message=words))

            if context in self._tars:
                root = self._tars[context] = await streamed(
                    link.tar(context), self._builds.objects, self._lease, moved=moved, warned=warned
                )
                return root
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
        check_outputs(request)
        self._tars = {place.name: "" for place in request.contexts if place.kind == "tar"}
        self._layouts = frozenset(place.name for place in request.contexts if place.kind == "layout")
        guard = Guard(await self._builds.doors())
        fetched = BuildFetcher(
            self._builds.objects,
            self._lease,
            guard,
            secret=session.secret,
            ssh=(lambda: session.ssh("default")) if has(request.ssh, "default") else None,
        )
        fetcher = Contexts(fetched, lambda name: self._told(session.tell, name))
        request = await self._with_dockerfile(request, fetcher, session)
        if judged(request, session):
            return Done()
        builds = self._builds
        ways = self._ways(request, session)
        await ways.open()
        async with builds.passing.build(stay=stays(request)) as passed:
            done = await self._built(request, session, fetcher, ways)
            passed([one.image for one in done.images])
            outputs = Outputs(
                builds.context, builds.snapshots, session, lambda name: self._told(session.tell, name)
            )
            made = [builds.context.images.find(one.image).layers for one in done.images]
            done = await outputs.deliver(request, done)
            await ways.export(made)
        return replace(done, host=builds.context.facts.hostname)

    async def _built(
        self,
        request: BuildRequest,
        session: Session,
        fetcher: Fetcher,
        ways: CacheWays,
    ) -> Done:
        builds = self._builds
        async with Runner(
            builds.executor, builds.copying, allow=entitlements(request), new_id=builds.new_id
        ) as runner:
            parts = Parts(
                images=builds.context.images,
                snapshots=builds.snapshots,
                runner=runner,
                cache=ways.cache,
                fetcher=fetcher,
                clock=builds.context.clock,
                new_id=builds.new_id,
                platform=host_platform(),
                slots=builds.slots,
                turns=builds.turns,
                inline=ways.inline,
                scan=builds.scanner.scan,
                layouts=self._layouts_of(request, session),
            )
            return await build(names_kept(request), session, parts)

    def _layouts_of(self, request: BuildRequest, session: Session) -> Layouts:
        images = self._builds.context.images
        assert isinstance(images, ImageStore)
        return Layouts(request.contexts, ClientFolder(session, self._builds.objects), images.bring)

    def _ways(self, request: BuildRequest, session: Session) -> CacheWays:
        builds, context = self._builds, self._builds.context
        images = context.images
        assert isinstance(images, ImageStore)
        return CacheWays(
            request,
            session,
            images,
            builds.cache,
            Teller(session, context.clock, first=FIRST_OF_CACHES),
            folder=ClientFolder(session, builds.objects),
            platform=host_platform(),
            login=nobody,
            now=context.clock.now,
        )

    async def _with_dockerfile(
        self, request: BuildRequest, fetcher: Contexts, session: Session
    ) -> BuildRequest:
        """Of a context that the client does not have, or not read, it is read here. Raises NotFound,
        InvalidInput."""
        main = next((place for place in request.contexts if not place.name), None)
        if request.dockerfile or main is None or main.kind not in ("tar", "git", "http"):
            return request
        if main.kind == "tar":
            root = await session.scan(main.name, ())
        else:
            root = await fetcher.context(main, private=request.private_addresses)
        objects = self._builds.objects
        entry = regular(find(objects.tree, root, request.file), request.file, MAX_DOCKERFILE)
        if main.kind == "tar":
            self._tars[main.name] = await in_thread(without_ignored, objects, self._lease, root, request.file)
        return replace(request, dockerfile=objects.read(entry.digest, MAX_DOCKERFILE))


def judged(request: BuildRequest, session: Session) -> bool:
    """Tell what the Dockerfile had better do otherwise; whether that was all that was asked for. Raises
    DockerfileFault, and InvalidInput where the file itself wants no findings."""
    dockerfile = parse(request.dockerfile, file=request.file)
    if request.outline:
        session.tell(outline(dockerfile))
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


def outline(dockerfile: Dockerfile) -> Outline:
    lines = [one for stage in dockerfile.stages for one in (stage.head, *stage.instructions)]
    every = sorted((*dockerfile.args, *lines), key=lambda one: one.spot.line)
    told = (Instructed(line=one.spot.line, source=one.source[:MAX_TOLD]) for one in every)
    return Outline(instructions=tuple(told))


class Contexts:
    """A Fetcher that gets a context once for a build, as a step."""

    def __init__(self, fetcher: Fetcher, told: Callable[[str], AbstractContextManager[int]]) -> None:
        self._fetcher = fetcher
        self._told = told
        self._roots: dict[str, str] = {}
        self.file = fetcher.file
        self.git = fetcher.git

    @property
    def materials(self) -> Sequence[Material]:
        return self._fetcher.materials

    async def context(self, context: Place, *, private: bool = False) -> str:
        if context.name not in self._roots:
            with self._told(f"[internal] load {context.kind} context {_public(context.ref)}"):
                self._roots[context.name] = await self._fetcher.context(context, private=private)
        return self._roots[context.name]


def _public(url: str) -> str:
    """For logs: without a user's name or password."""
    head, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}{mark}{host.rpartition('@')[2]}{slash}{path}" if mark else url


async def fleets_doors(controllers: Iterable[str], ports: Iterable[int]) -> list[tuple[str, int]]:
    """What no build may fetch from: addresses of the fleet's API (HOST:PORT each), and ports of this host."""
    found = [("", port) for port in ports if port]
    for text in controllers:
        host, port = parted(text, 7420)
        found.append(("", port))  # a controller may be here, and be known by another address
        with contextlib.suppress(OSError):
            names = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found += [(str(address[0]).partition("%")[0], port) for *_, address in names]
    return found
