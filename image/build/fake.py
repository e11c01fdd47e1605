"""A builder in memory, for tests of the engine: files are tuples of what was done to them.

A step's result is a line of text that tells it, so that two builds can be compared; times are the clock's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from image.build.base import (
    Bound,
    Chosen,
    Files,
    FileSource,
    Material,
    RootSource,
    Session,
    Source,
    TreeSource,
)
from image.build.step import CopyStep, FromContext, PlacedMount, RunStep, WorkdirStep
from image.digest import chain_ids, of
from model.build import Context, FromHost, Typed
from model.errors import FlotaError, NotFound
from model.image import ImageRecord


class FakeWork:
    def __init__(self, snapshots: FakeSnapshots, files: Files) -> None:
        self._snapshots = snapshots
        self._files = files
        self.root = f"/fake/{snapshots.count}"
        self.done: list[str] = []

    async def keep(self, ident: str, discarded: Sequence[str] = (), latest: int | None = None) -> Files:
        del discarded, latest
        layer = f"step:{ident}"
        text = "\n".join(self.done)
        below = [self._snapshots.diffs[known] for known in self._files.layers]
        self._snapshots.diffs[layer] = of(f"{text} over {below}".encode())
        return Files(id=ident, layers=(*self._files.layers, layer))


class FakeSnapshots:
    """`diffs` of each layer; `open` counts what is mounted, `held` what is held."""

    def __init__(self) -> None:
        self.diffs: dict[str, str] = {}
        self.works: dict[str, FakeWork] = {}
        self.roots: dict[str, Files] = {}
        self.count = 0
        self.open = 0
        self.held: Counter[str] = Counter()

    def of_image(self, image: ImageRecord | None) -> Files:
        if image is None or not image.layers:
            return Files(id="scratch")
        chains = chain_ids(image.layers)
        self.diffs.update(zip(chains, image.layers, strict=True))
        return Files(id=chains[-1], layers=chains)

    @contextlib.asynccontextmanager
    async def work(self, files: Files) -> AsyncIterator[FakeWork]:
        self.count += 1
        work = FakeWork(self, files)
        self.works[work.root] = work
        self.roots[work.root] = files
        self.open += 1
        try:
            yield work
        finally:
            self.open -= 1
            del self.works[work.root], self.roots[work.root]

    @contextlib.asynccontextmanager
    async def shown(self, files: Files) -> AsyncIterator[str]:
        async with self.work(files) as work:
            yield work.root

    @contextlib.contextmanager
    def hold(self, files: Files) -> Iterator[None]:
        self.held.update(files.layers)
        try:
            yield
        finally:
            self.held.subtract(files.layers)
            self.held += Counter()

    @contextlib.asynccontextmanager
    async def stacked(self, files: Files, linked: Files, ident: str) -> AsyncIterator[Files]:
        (one,) = linked.layers
        layer = f"step:{ident}"
        self.diffs[layer] = self.diffs[one]
        yield Files(id=ident, layers=(*files.layers, layer))

    def diffs_of(self, root: str) -> tuple[str, ...]:
        """What is mounted there."""
        return tuple(self.diffs[layer] for layer in self.roots[root].layers)

    async def settled(self, files: Files) -> Sequence[tuple[str, str]]:
        diffs = tuple(self.diffs[layer] for layer in files.layers)
        return tuple(zip(chain_ids(diffs), diffs, strict=True))


@dataclass
class FakeRunner:
    """`ran` are the steps that were done; commands that hold `failing` exit with 1. While `gate` is closed,
    RUN waits, while `typed` is, a shell."""

    snapshots: FakeSnapshots
    contents: dict[str, str] = field(default_factory=dict)
    """By source, what a COPY finds; whatever is not there is not found."""
    failing: str = "false"
    ran: list[str] = field(default_factory=list)
    bound: list[list[Bound | None]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    typed: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most: int = 0
    shells: int = 0
    slow: Callable[[str], Awaitable[object]] = lambda _: asyncio.sleep(0)
    """How long a command takes."""

    def __post_init__(self) -> None:
        self.gate.set()
        self.typed.set()

    async def run(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        del session, number
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        self.ran.append(step.args[-1])
        self.bound.append(list(bound))
        await self.slow(step.args[-1])
        shown = [self._seen(placed, one) for placed, one in zip(step.mounts, bound, strict=True)]
        self._did(root, f"RUN {step.args} {step.env} {step.user} {step.workdir} {shown}")
        return 1 if step.args[-1] == self.failing else 0

    def _seen(self, placed: PlacedMount, bound: Bound | None) -> object:
        """Of a context the source alone is mounted."""
        if isinstance(placed.origin, FromContext):
            return self.contents.get(placed.mount.source)
        return bound and self.snapshots.diffs_of(bound.path)

    async def shell(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        del root, step, bound, session, number
        self.shells += 1
        await self.typed.wait()
        return 0

    async def choose(self, step: CopyStep, sources: Sequence[Source]) -> Chosen:
        assert len(sources) == len(step.sources)
        found = [self._content(name, source) for name, source in zip(step.sources, sources, strict=True)]
        made = repr((found, step.inline, step.mode, step.owner)).encode()
        return Chosen(key=hashlib.sha256(made).hexdigest(), files=len(found))

    def _content(self, name: str, source: Source) -> str:
        match source:
            case TreeSource():
                if name != "/" and name not in self.contents:
                    raise NotFound(f"{name}: not in the context")
                return self.contents.get(name, repr(sorted(self.contents.items())))
            case RootSource(path=path):
                return repr((name, self.snapshots.diffs_of(path)))
            case FileSource(name=fetched):
                return self.contents[fetched]

    async def copy(self, root: str, step: CopyStep, sources: Sequence[Source]) -> None:
        chosen = await self.choose(step, sources)
        self.ran.append(f"copy {' '.join(step.sources)}")
        self._did(root, f"COPY {step.target} {chosen.key}")

    async def workdir(self, root: str, step: WorkdirStep) -> bool:
        self.ran.append(f"workdir {step.path}")
        self._did(root, f"WORKDIR {step.path}")
        return True

    def _did(self, root: str, what: str) -> None:
        self.snapshots.works[root].done.append(what)


class FakeSession:
    """`heard` is all that it was told; `scanned` the paths that were asked of each context."""

    def __init__(self, roots: dict[str, str] | None = None) -> None:
        self.roots = roots if roots is not None else {"": "tree:1"}
        self.heard: list[FromHost] = []
        self.scanned: list[tuple[str, tuple[str, ...]]] = []

    def tell(self, said: FromHost) -> None:
        self.heard.append(said)

    async def scan(self, context: str, paths: Sequence[str]) -> str:
        self.scanned.append((context, tuple(paths)))
        if context not in self.roots:
            raise NotFound(f"no context {context!r}")
        return self.roots[context]

    async def secret(self, ident: str) -> bytes | None:
        del ident
        return None

    def ssh(self, ident: str) -> AbstractAsyncContextManager[str]:
        raise NotFound(f"no agent {ident}")

    async def send(self, output: int, data: AsyncIterator[bytes]) -> None:
        del output
        async for _ in data:
            continue

    async def shell(self, number: int) -> AsyncIterator[Typed]:
        del number
        return _nothing()


async def _nothing() -> AsyncIterator[Typed]:
    for typed in tuple[Typed, ...]():
        yield typed


class FakeFetcher:
    """`files` by URL, `trees` by URL of a repository or context."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.trees: dict[str, str] = {}
        self.materials: list[Material] = []
        self.failure: FlotaError | None = None

    @contextlib.asynccontextmanager
    async def file(self, url: str, *, checksum: str = "", private: bool = False) -> AsyncIterator[FileSource]:
        del checksum, private
        if url not in self.files:
            raise NotFound(f"{url}: not found")
        yield FileSource(path="/fake/file", name=self.files[url])

    async def git(
        self, url: str, *, checksum: str = "", keep_git_dir: bool = False, private: bool = False
    ) -> str:
        del checksum, keep_git_dir, private
        if url not in self.trees:
            raise NotFound(f"{url}: not found")
        return self.trees[url]

    async def context(self, context: Context, *, private: bool = False) -> str:
        return await self.git(context.ref, private=private)
