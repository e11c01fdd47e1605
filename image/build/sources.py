"""Whose files the steps of one build read: contexts, stages, images, URLs.

Each context is scanned once, and only if a step reads it. What a step would copy is named by a key before
anything is mounted, where the same was chosen of the same files before. Invariant: what is mounted for a step
is unmounted when its block ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from image.build.base import (
    Bound,
    Chosen,
    Fetcher,
    Files,
    RootSource,
    Session,
    Snapshots,
    Source,
    StepRunner,
    TreeSource,
)
from image.build.cache import Cache
from image.build.keys import guess_of
from image.build.plan import Plan, mount_source
from image.build.remote import kind_of
from image.build.step import CopyStep, FromContext, FromImage, FromStage, Origin, RunStep, Step, WorkdirStep
from model.build import BuildRequest, Context
from model.errors import NotFound, Unsupported

FilesOf = Callable[[FromStage | FromImage], Awaitable[Files]]
ContextFiles = Callable[[str], Awaitable[Files]]
"""A tree of the object store as files that can be mounted."""


class Sources:
    """`files_of` waits for a stage, or gets an image."""

    def __init__(
        self,
        request: BuildRequest,
        plan: Plan,
        session: Session,
        *,
        snapshots: Snapshots,
        runner: StepRunner,
        cache: Cache,
        fetcher: Fetcher,
        files_of: FilesOf,
    ) -> None:
        self._request = request
        self._plan = plan
        self._session = session
        self._snapshots = snapshots
        self._runner = runner
        self._cache = cache
        self._fetcher = fetcher
        self._files_of = files_of
        self._contexts = {context.name: context for context in request.contexts}
        self._roots: dict[str, str] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def ready(self, step: Step) -> None:
        """Until what it reads is here, which has steps of its own."""
        match step:
            case CopyStep():
                if any(not (step.add and kind_of(source)) for source in step.sources):
                    await self._id_of(step.origin)
            case RunStep():
                for origin in (placed.origin for placed in step.mounts):
                    if origin is not None:
                        await self._id_of(origin)
            case WorkdirStep():
                return

    # -- of COPY and ADD ----------------------------------------------------------------------------
    async def content(self, step: CopyStep, opened: Opened) -> str:
        """The key of what it would write."""
        ids = await self._ids(step)
        guess = guess_of(step, ids) if ids is not None else ""
        known = self._cache.chosen(guess) if guess else None
        if known is not None:
            return known
        chosen: Chosen = await self._runner.choose(step, await opened.sources(step))
        if guess:
            self._cache.note(guess, chosen.key)
        return chosen.key

    async def _ids(self, step: CopyStep) -> tuple[str, ...] | None:
        """By which its files are known; None where that takes reading them."""
        if step.add and any(kind_of(source) == "file" for source in step.sources):
            return None
        found: list[str] = []
        for source in step.sources:
            if step.add and kind_of(source) == "git":
                found.append(await self.git(source, step))
        if len(found) < len(step.sources):
            found.append(await self._id_of(step.origin))
        return tuple(found)

    async def _id_of(self, origin: Origin) -> str:
        if isinstance(origin, FromContext):
            return await self.root(origin.name)
        return (await self._files_of(origin)).id

    async def git(self, url: str, step: CopyStep) -> str:
        return await self._once(
            f"git {url} {step.checksum} {step.keep_git_dir}",
            lambda: self._fetcher.git(
                url,
                checksum=step.checksum,
                keep_git_dir=step.keep_git_dir,
                private=self._request.private_addresses,
            ),
        )

    # -- of RUN -------------------------------------------------------------------------------------
    async def read_by(self, step: RunStep) -> tuple[str, ...]:
        """Keys of what its mounts show."""
        keys: list[str] = []
        for placed in step.mounts:
            if placed.origin is None:
                continue
            if isinstance(placed.origin, FromContext):
                copy = CopyStep(
                    sources=(mount_source(placed),), target="/", origin=placed.origin, spot=step.spot
                )
                async with self.opened() as opened:
                    keys.append(await self.content(copy, opened))
            else:
                keys.append((await self._files_of(placed.origin)).id)
        return tuple(keys)

    @contextlib.asynccontextmanager
    async def bound(self, step: RunStep, context_files: ContextFiles) -> AsyncIterator[list[Bound | None]]:
        """What its mounts show, mounted until the block ends."""
        async with AsyncExitStack() as stack:
            found: list[Bound | None] = []
            for placed in step.mounts:
                if placed.origin is None:
                    found.append(None)
                    continue
                if isinstance(placed.origin, FromContext):
                    files = await context_files(placed.origin.name)
                else:
                    files = await self._files_of(placed.origin)
                if placed.mount.read_only is False and placed.mount.kind == "bind":
                    work = await stack.enter_async_context(self._snapshots.work(files))
                    found.append(Bound(path=work.root, id=files.id))
                else:
                    path = await stack.enter_async_context(self._snapshots.shown(files))
                    found.append(Bound(path=path, id=files.id))
            yield found

    # -- places -------------------------------------------------------------------------------------
    def opened(self) -> Opened:
        return Opened(self, self._snapshots, self._fetcher, self._request.private_addresses)

    async def files(self, origin: FromStage | FromImage) -> Files:
        return await self._files_of(origin)

    async def root(self, name: str) -> str:
        """The root tree of a context."""
        context = self._context(name)

        async def found() -> str:
            if context.kind in ("local", "tar"):
                return await self._session.scan(name, self._plan.context_paths(name))
            if context.kind in ("git", "http"):
                return await self._fetcher.context(context, private=self._request.private_addresses)
            raise Unsupported(f"a context of the kind {context.kind} can't be read by steps")

        return await self._once(f"context {name}", found)

    def _context(self, name: str) -> Context:
        found = self._contexts.get(name)
        if found is None or found.kind == "none":
            what = f"the context {name!r}" if name else "a build context"
            raise NotFound(
                f"the Dockerfile reads {what}, and none was given", hint="Give its path: flota build ."
            )
        return found

    async def _once(self, what: str, work: Callable[[], Awaitable[str]]) -> str:
        async with self._turns.setdefault(what, asyncio.Lock()):
            if what not in self._roots:
                self._roots[what] = await work()
            return self._roots[what]


class Opened:
    """The sources of one COPY, mounted or fetched when first asked for. To be entered."""

    def __init__(self, sources: Sources, snapshots: Snapshots, fetcher: Fetcher, private: bool) -> None:
        self._sources = sources
        self._snapshots = snapshots
        self._fetcher = fetcher
        self._private = private
        self._stack = AsyncExitStack()
        self._found: list[Source] | None = None

    async def __aenter__(self) -> Opened:
        return self

    async def __aexit__(self, *exit: object) -> None:
        await self._stack.aclose()

    async def sources(self, step: CopyStep) -> Sequence[Source]:
        if self._found is None:
            found: list[Source] = []
            place: Source | None = None
            for source in step.sources:
                kind = kind_of(source) if step.add else ""
                if kind == "file":
                    fetched = self._fetcher.file(source, checksum=step.checksum, private=self._private)
                    found.append(await self._stack.enter_async_context(fetched))
                elif kind == "git":
                    found.append(TreeSource(root=await self._sources.git(source, step), whole=True))
                else:
                    place = place or await self._place(step.origin)
                    found.append(place)
            self._found = found
        return self._found

    async def _place(self, origin: Origin) -> Source:
        if isinstance(origin, FromContext):
            return TreeSource(root=await self._sources.root(origin.name))
        files = await self._sources.files(origin)
        return RootSource(path=await self._stack.enter_async_context(self._snapshots.shown(files)))
