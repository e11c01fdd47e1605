"""The seams of a build: who asked for it (`Session`), who holds files (`Snapshots`), who does its steps
(`StepRunner`).

`image.build.engine` knows these alone. Implementations: Snapshots in `image.build.snapshots`, StepRunner in
`agent.build`, Session in `agent.build.session` (a client's connection) and wherever else builds come from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from image.build.step import CopyStep, RunStep, WorkdirStep
from model.build import Context, FromHost, Typed
from model.image import ImageRecord
from model.spec import Struct


class Files(Struct):
    """A stack of layers: chain ids, bottom first; the topmost ones may be of steps whose digest is not known
    yet (`Snapshots.settled`). `id` names the content as the cache goes by it: equal ids, equal files."""

    id: str
    layers: tuple[str, ...] = ()


class Work(Protocol):
    """Files that a step changes."""

    @property
    def root(self) -> str:
        """Where they are mounted, writable."""
        ...

    async def keep(self, ident: str, discarded: Sequence[str] = (), latest: int | None = None) -> Files:
        """What they have become, one layer more, known as `ident`; below the paths `discarded` as they were,
        and nothing in the layer younger than `latest` (Unix seconds).
        It is made a layer (digest, compression) while the build goes on. They are not mounted any more."""
        ...


class Snapshots(Protocol):
    def of_image(self, image: ImageRecord | None) -> Files:
        """None: `scratch`."""
        ...

    def work(self, files: Files) -> AbstractAsyncContextManager[Work]:
        """A fresh writable layer over them, until the block ends; what is not kept is thrown away."""
        ...

    def shown(self, files: Files) -> AbstractAsyncContextManager[str]:
        """They, mounted read-only, until the block ends."""
        ...

    def hold(self, files: Files) -> AbstractContextManager[None]:
        """Until the block ends their layers stay."""
        ...

    def stacked(self, files: Files, linked: Files, ident: str) -> AbstractAsyncContextManager[Files]:
        """A layer that stands on nothing, over `files`, known as `ident`; held until the block ends. It
        becomes a layer of its own while the build goes on."""
        ...

    async def settled(self, files: Files) -> Sequence[tuple[str, str]]:
        """(chain id, diff id) of each layer, bottom first, once all are layers like any other."""
        ...


# -- what a COPY takes its files from ---------------------------------------------------------------
class TreeSource(Struct, tag="tree"):
    """A tree of the object store (`image.context.objects`): a context, or a git repository."""

    root: str
    """Digest of the tree object."""
    whole: bool = False
    """A git repository that ADD names: all that is in it, whatever the step calls it."""


class RootSource(Struct, tag="root"):
    """A mounted root: another stage's, an image's. Links in it are those of an enemy."""

    path: str


class FileSource(Struct, tag="file"):
    """One fetched file: ADD of a URL."""

    path: str
    name: str
    """Under which it is written into a directory."""
    mtime_ns: int = 0
    mode: int = 0o600


Source = TreeSource | RootSource | FileSource


class Chosen(Struct):
    """What the sources of one COPY come to: `key` is the checksum of all that will be written, times left out
    (Docker's rule)."""

    key: str
    files: int = 0
    size: int = 0


class Bound(Struct):
    """Whose files a mount of RUN shows: a mounted root or a checked-out context. For a writable bind it is a
    layer of that step's own over them, thrown away by whoever made it. `id` names their content: a cache that
    begins with other files is another cache."""

    path: str
    id: str = ""


class Material(Struct):
    """What came in from outside, and by which digests it is known (`sha256`; `sha1` of a git commit). `uri`
    has neither a login nor a query."""

    uri: str
    digest: Mapping[str, str]


class Fetcher(Protocol):
    """Files of ADD, and contexts, that come from the network. Raises NotFound, Forbidden, Damaged,
    Unavailable."""

    @property
    def materials(self) -> Sequence[Material]:
        """What it has fetched for this build so far, in no order that means anything."""
        ...

    async def context(self, context: Context, *, private: bool = False) -> str:
        """As `git`, of a context of kind git or http."""
        ...

    def file(
        self, url: str, *, checksum: str = "", private: bool = False
    ) -> AbstractAsyncContextManager[FileSource]:
        """One file, until the block ends. `private`: addresses of private networks are allowed."""
        ...

    async def git(
        self, url: str, *, checksum: str = "", keep_git_dir: bool = False, private: bool = False
    ) -> str:
        """Digest of the root tree; its objects are in the store on return."""
        ...


class StepRunner(Protocol):
    """Changes the files at `root`. Raises FlotaError; what it has half done is thrown away by the caller.
    `sources` go with `CopyStep.sources`, one for each; the same one may stand there several times."""

    async def run(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        """The process's exit code. `bound` goes with `step.mounts`."""
        ...

    async def shell(
        self, root: str, step: RunStep, bound: Sequence[Bound | None], session: Session, number: int
    ) -> int:
        """A shell for the client in what a step that failed has left at `root`, with the step's own mounts,
        variables and network; its exit code."""
        ...

    async def choose(self, step: CopyStep, sources: Sequence[Source]) -> Chosen:
        """Raises NotFound, naming the source that is not there; a wildcard may match nothing, as
        BuildKit's."""
        ...

    async def copy(self, root: str, step: CopyStep, sources: Sequence[Source]) -> None:
        """Of `step.link` the root may be empty: what is copied depends on nothing that is there, and the
        layer it makes fits on any other."""
        ...

    async def workdir(self, root: str, step: WorkdirStep) -> bool:
        """Whether anything was changed."""
        ...


class Session(Protocol):
    """The client's end of one build."""

    def tell(self, said: FromHost) -> None:
        """Never waits; a slow reader loses output of steps, and is told how much."""
        ...

    async def scan(self, context: str, paths: Sequence[str]) -> str:
        """The digest of the root tree of a context of the client (local, tar); all its objects are in the
        store on return. Raises the client's errors."""
        ...

    async def secret(self, ident: str) -> bytes | None: ...

    def ssh(self, ident: str) -> AbstractAsyncContextManager[str]:
        """Path of a socket that is the client's agent, until the block ends. Raises NotFound."""
        ...

    async def send(self, output: int, data: AsyncIterator[bytes]) -> None:
        """Output number `output` to the client, at its pace."""
        ...

    async def shell(self, number: int) -> AsyncIterator[Typed]:
        """What the client types, and its terminal's sizes, for a shell in the failed step. What the shell
        says is told as the step's output (`StepSaid`)."""
        ...
