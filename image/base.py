"""What the agent needs of images and root file systems: the Images seam.

Implementation: `image.store.ImageStore` (real), `image.fake.FakeImages` (in memory, for tests of the agent).
Invariant: an image in `list()` is complete and verified; nothing half-made is ever visible.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Literal, Protocol

from image.attestations import Predicate
from image.collection import Disk
from image.commit import Commit
from image.layertar import Changed
from image.manifest import Configuration
from image.registry.source import Source
from model.api import ImageRemoved
from model.disk import DiskUse
from model.image import ImageRecord, Progress
from model.registries import NOBODY, Login
from model.spec import Struct

OnProgress = Callable[[Progress], None]
PullPolicy = Literal["missing", "always", "never"]
FindLogin = Callable[[str], Awaitable[Login]]
"""Who we are at the registry of an image; asked only when something is to be pulled."""
Choice = Callable[[ImageRecord], bool]
NOTHING: Mapping[str, str] = {}


def anything(image: ImageRecord) -> bool:
    """The choice of all."""
    del image
    return True


def silent(progress: Progress) -> None:
    """Who listens where nobody does."""
    del progress


async def nobody(ref: str) -> Login:
    del ref
    return NOBODY


class Root(Struct):
    """A container's root file system."""

    container: str
    image: str
    path: str
    """Where it is (to be) mounted."""
    upper: str = ""
    """The writable layer, if the driver has one."""


class PushWish(Struct):
    """`platform`: that one's image alone. `referrers`: and what refers to it where it came from, as
    signatures and lists of its parts do."""

    platform: str = ""
    referrers: bool = False


PLAIN = PushWish()


class Built(Struct):
    """Images that were built here. `digests` of their manifests; `digest`: of what the names mean, an index
    for several platforms, else the manifest."""

    images: tuple[ImageRecord, ...]
    digests: tuple[str, ...]
    digest: str


class Images(Protocol):
    def list(self) -> Sequence[ImageRecord]: ...

    def find(self, ref: str, platform: str = "") -> ImageRecord:
        """By id, unique id prefix, or reference (Docker's normalisation); of several platforms' images the
        one for `platform`, without it this machine's. Raises NotFound, Ambiguous."""
        ...

    def family(self, ref: str) -> Sequence[ImageRecord]:
        """As `find`, and the images of other platforms that came with it."""
        ...

    async def pull(
        self, ref: str, *, platform: str = "", progress: OnProgress | None = None, login: Login = NOBODY
    ) -> ImageRecord:
        """From its registry. Concurrent pulls of one reference share the work."""
        ...

    async def pull_all(
        self, ref: str, *, progress: OnProgress | None = None, login: Login = NOBODY
    ) -> Sequence[ImageRecord]:
        """Of every platform that its index names; the index is kept. All or nothing."""
        ...

    async def ensure(
        self,
        ref: str,
        *,
        policy: PullPolicy,
        platform: str = "",
        login: FindLogin = nobody,
        progress: OnProgress | None = None,
    ) -> ImageRecord:
        """What a container start needs: find, else pull as the policy says; platform is checked."""
        ...

    async def load(
        self, chunks: AsyncIterator[bytes], *, platform: str = "", progress: OnProgress | None = None
    ) -> Sequence[ImageRecord]:
        """A docker-archive or OCI archive, plain, gzip or zstd; of indexes in it the image for `platform`.
        All or nothing. Each as it is here, with the names that the archive has for it alone."""
        ...

    async def import_tar(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ref: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> ImageRecord:
        """A root file system tar (plain, gzip, zstd, xz, bzip2) as an image of one layer.
        `changes` are Dockerfile instructions: CMD ENTRYPOINT ENV EXPOSE LABEL USER VOLUME WORKDIR
        STOPSIGNAL."""
        ...

    async def commit(self, container: str, wish: Commit) -> ImageRecord:
        """What the container's root has become, as an image over its own. All or nothing."""
        ...

    async def add_built(
        self,
        made: Sequence[Configuration],
        names: Sequence[str] = (),
        stated: Sequence[Sequence[Predicate]] = (),
    ) -> Built:
        """One image for each platform, whose layers are here and held, under full names, which they take from
        others. `stated`: what is attested of each. All or nothing; several get an index, and one of which
        something is stated."""
        ...

    async def push(
        self, ref: str, wish: PushWish = PLAIN, *, login: Login = NOBODY, progress: OnProgress | None = None
    ) -> ImageRecord:
        """To the registry and tag that `ref` names, which must be a name of the image: its whole index where
        all platforms of that are here and none is asked for. The record has the digest by which it can be
        pulled."""
        ...

    def save(
        self, refs: Sequence[str], platform: str = "", *, names: Sequence[str] = (), whole: bool = False
    ) -> AsyncIterator[bytes]:
        """A tar that `load` and Docker read. `names`: full ones that an image asked for by its id has in it;
        `whole`: with the images of other platforms that its index names. Attestations go with an image that
        is all of its index, and with a whole one. Raises NotFound before its first byte."""
        ...

    async def tag(self, ref: str, name: str) -> ImageRecord: ...

    async def remove(self, ref: str, *, force: bool = False, family: bool = False) -> ImageRemoved:
        """Untag, and delete what nothing refers to any more; of a `family` also those of other platforms that
        the name or digest means. Raises InUse when a container root needs one; then all stay."""
        ...

    async def prune(
        self, *, all_unused: bool = False, chosen: Choice = anything, spare: Mapping[str, str] = NOTHING
    ) -> ImageRemoved:
        """Of the images that no root needs and `chosen` fits: the nameless ones, or all. `spare` are
        references of images that stay, each with its reason."""
        ...

    async def free(self, need: int, *, spare: Mapping[str, str], unused_for: float) -> ImageRemoved:
        """Make about `need` bytes of room, as far as images allow that nothing needs, that are not spared and
        that nobody used for so many seconds; longest unused first. It is made when this returns."""
        ...

    def lease(self, ref: str) -> AbstractContextManager[ImageRecord]:
        """Until the block ends its layers and documents and its family's stay, whoever removes it. Raises as
        `find`."""
        ...

    async def deleted(self) -> None:
        """Until what was removed is off the disk, as far as it can be deleted."""
        ...

    def disk(self) -> Disk:
        """The file system that images lie on."""
        ...

    def usage(self, spare: Mapping[str, str]) -> DiskUse:
        """Of all images; `spare` as in `prune`."""
        ...

    async def prepare_root(self, container: str, image_id: str) -> Root:
        """Make the writable layer over the image. Idempotent per container; not yet mounted."""
        ...

    async def mount_root(self, container: str) -> Root:
        """Mount it at `Root.path`. Idempotent; also after a reboot. Raises NotFound."""
        ...

    async def unmount_root(self, container: str) -> None:
        """Idempotent; the writable layer stays."""
        ...

    async def remove_root(self, container: str) -> None:
        """Unmount and delete the writable layer. Idempotent."""
        ...

    def borrow_root(self, container: str) -> AbstractAsyncContextManager[Root]:
        """Mounted until the block ends, whatever the container does meanwhile. Raises NotFound."""
        ...

    def changed(self, container: str) -> tuple[Changed, tuple[str, ...]]:
        """Where the container's changes lie, and the directories of the image's layers, top first. Raises
        NotFound."""
        ...

    def roots(self) -> Sequence[Root]:
        """Every root that exists on disk, for adoption and clean-up after a crash."""
        ...

    async def root_usage(self, container: str) -> int:
        """Bytes on disk of the writable layer."""
        ...

    @property
    def source(self) -> Source:
        """Where they are pulled from and pushed to."""
        ...

    @property
    def driver(self) -> tuple[str, str]:
        """(name of the storage driver, why it was chosen)."""
        ...
