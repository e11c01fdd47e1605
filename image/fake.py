"""Images in memory, for tests of the agent: a pull takes what `available` holds, a root is a plain folder."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from image import config_blob
from image.attestations import Predicate
from image.base import (
    NOTHING,
    PLAIN,
    Built,
    Choice,
    FindLogin,
    OnProgress,
    PullPolicy,
    PushWish,
    Root,
    anything,
    nobody,
)
from image.collection import Disk
from image.commit import Commit
from image.digest import of
from image.incoming import Incoming, entry_of
from image.layertar import Changed
from image.manifest import Configuration
from image.reference import parse
from image.registry.source import NoSource, Source
from model.api import ImageRemoved
from model.disk import DiskUse
from model.errors import InUse, NotFound
from model.image import ImageConfig, ImageRecord
from model.registries import NOBODY, Login


def record(name: str, config: ImageConfig | None = None) -> ImageRecord:
    """An image as a host would hold it."""
    return ImageRecord(
        id=of(name.encode()), names=(parse(name).name,), config=config or ImageConfig(cmd=("sh",)), size=1
    )


class FakeImages:
    """`images` are on the host, `available` in a registry. `mounted` and `made` are for assertions; an
    entry in `failures` is raised by the call of that name, once."""

    def __init__(self, folder: Path, images: Sequence[ImageRecord] = ()) -> None:
        self._folder = folder
        self.images = {image.id: image for image in images}
        self.available: dict[str, ImageRecord] = {}
        self.made: dict[str, Root] = {}
        self.mounted: set[str] = set()
        self.failures: dict[str, Exception] = {}
        self.logins: list[Login] = []
        """Of pulls and pushes, in order."""
        self.stated: list[tuple[Predicate, ...]] = []
        """What was attested of the images that were built last."""
        self.spared: dict[str, str] = {}
        """What the last removal by policy was told to spare."""
        self.room = Disk(capacity=100, free=50)
        """What a removal frees is added to it."""
        self.trash = 0
        """Bytes of it that were removed and are yet to be deleted."""
        self.driver = ("fake", "for tests")
        self.source: Source = NoSource()

    def _fail(self, call: str) -> None:
        if (error := self.failures.pop(call, None)) is not None:
            raise error

    def list(self) -> Sequence[ImageRecord]:
        return list(self.images.values())

    def find(self, ref: str, platform: str = "") -> ImageRecord:
        del platform
        for image in self.images.values():
            if (
                image.id == ref
                or image.id.removeprefix("sha256:").startswith(ref)
                or parse(ref).name in image.names
            ):
                return image
        raise NotFound(f"no such image: {ref}")

    def family(self, ref: str) -> Sequence[ImageRecord]:
        return [self.find(ref)]

    async def pull_all(
        self, ref: str, *, progress: OnProgress | None = None, login: Login = NOBODY
    ) -> Sequence[ImageRecord]:
        return [await self.pull(ref, progress=progress, login=login)]

    async def ensure(
        self,
        ref: str,
        *,
        policy: PullPolicy,
        platform: str = "",
        login: FindLogin = nobody,
        progress: OnProgress | None = None,
    ) -> ImageRecord:
        self._fail("ensure")
        try:
            return self.find(ref)
        except NotFound:
            if policy == "never":
                raise
            return await self.pull(ref, platform=platform, login=await login(ref), progress=progress)

    async def pull(
        self, ref: str, *, platform: str = "", progress: OnProgress | None = None, login: Login = NOBODY
    ) -> ImageRecord:
        del platform, progress
        self.logins.append(login)
        self._fail("pull")
        image = self.available.get(parse(ref).name)
        if image is None:
            raise NotFound(f"no such image: {ref}")
        self.images[image.id] = image
        return image

    async def load(
        self, chunks: AsyncIterator[bytes], *, platform: str = "", progress: OnProgress | None = None
    ) -> Sequence[ImageRecord]:
        del platform, progress
        name = b"".join([chunk async for chunk in chunks]).decode()
        image = record(name)
        self.images[image.id] = image
        return [image]

    async def import_tar(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ref: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> ImageRecord:
        del message, changes, platform
        data = b"".join([chunk async for chunk in chunks])
        image = ImageRecord(id=of(data), names=(parse(ref).name,) if ref else ())
        self.images[image.id] = image
        return image

    async def commit(self, container: str, wish: Commit) -> ImageRecord:
        self._fail("commit")
        self._root(container)
        image = ImageRecord(
            id=of(f"{container} {wish.ref}".encode()),
            names=(parse(wish.ref).name,) if wish.ref else (),
            config=wish.config,
            origin=wish.origin,
        )
        self.images[image.id] = image
        return image

    async def add_built(
        self,
        made: Sequence[Configuration],
        names: Sequence[str] = (),
        stated: Sequence[Sequence[Predicate]] = (),
    ) -> Built:
        self._fail("add_built")
        self.stated = [tuple(some) for some in stated]
        found = []
        for parsed in made:
            incoming = Incoming(config=config_blob.encode(parsed), parsed=parsed, names=tuple(names))
            image = entry_of(incoming, None, lambda _: None).record
            self.images[image.id] = image
            found.append(image)
        digests = tuple(of(image.id.encode()) for image in found)
        return Built(images=tuple(found), digests=digests, digest=of(repr(digests).encode()))

    @contextlib.asynccontextmanager
    async def borrow_root(self, container: str) -> AsyncIterator[Root]:
        yield self._root(container)

    def changed(self, container: str) -> tuple[Changed, tuple[str, ...]]:
        return Changed(path=self._root(container).path, whole=True), ()

    def _root(self, container: str) -> Root:
        if container not in self.made:
            raise NotFound(f"container {container} has no root")
        return self.made[container]

    async def push(
        self, ref: str, wish: PushWish = PLAIN, *, login: Login = NOBODY, progress: OnProgress | None = None
    ) -> ImageRecord:
        del wish, progress
        self._fail("push")
        self.logins.append(login)
        image = self.find(ref)
        self.available[parse(ref).name] = image
        return image

    async def save(
        self, refs: Sequence[str], platform: str = "", *, names: Sequence[str] = (), whole: bool = False
    ) -> AsyncIterator[bytes]:
        del platform, whole
        for ref in refs:
            yield (names or self.find(ref).names)[0].encode()

    async def tag(self, ref: str, name: str) -> ImageRecord:
        image = self.find(ref)
        tagged = msgspec.structs.replace(image, names=(*image.names, parse(name).name))
        self.images[image.id] = tagged
        return tagged

    async def remove(self, ref: str, *, force: bool = False, family: bool = False) -> ImageRemoved:
        del force, family
        image = self.find(ref)
        if any(root.image == image.id for root in self.made.values()):
            raise InUse(f"image {ref} is in use")
        del self.images[image.id]
        return ImageRemoved(untagged=image.names, deleted=(image.id,))

    def _unused(self, spare: Mapping[str, str]) -> Sequence[ImageRecord]:
        spared = {image.id for image in self.images.values() if {image.id, *image.names} & spare.keys()}
        used = {root.image for root in self.made.values()} | spared
        return [image for image in self.images.values() if image.id not in used]

    async def prune(
        self, *, all_unused: bool = False, chosen: Choice = anything, spare: Mapping[str, str] = NOTHING
    ) -> ImageRemoved:
        self.spared = dict(spare)
        gone = [i for i in self._unused(spare) if (all_unused or not i.names) and chosen(i)]
        return self._gone(gone)

    async def free(self, need: int, *, spare: Mapping[str, str], unused_for: float) -> ImageRemoved:
        del unused_for
        self.spared = dict(spare)
        gone = list[ImageRecord]()
        for image in self._unused(spare):
            if sum(i.size for i in gone) < need:
                gone.append(image)
        return self._gone(gone)

    def _gone(self, gone: Sequence[ImageRecord]) -> ImageRemoved:
        for image in gone:
            del self.images[image.id]
        freed = sum(image.size for image in gone)
        self.room = Disk(capacity=self.room.capacity, free=self.room.free + freed)
        return ImageRemoved(deleted=tuple(image.id for image in gone), freed=freed)

    @contextlib.contextmanager
    def lease(self, ref: str) -> Iterator[ImageRecord]:
        yield self.find(ref)

    async def deleted(self) -> None:
        self.room = Disk(capacity=self.room.capacity, free=self.room.free + self.trash)
        self.trash = 0

    def disk(self) -> Disk:
        return self.room

    def usage(self, spare: Mapping[str, str]) -> DiskUse:
        size = sum(image.size for image in self.images.values())
        loose = self._unused(spare)
        used = {root.image for root in self.made.values()}
        return DiskUse(
            kind="images",
            total=len(self.images),
            active=len(used),
            size=size,
            reclaimable=sum(image.size for image in loose),
        )

    async def prepare_root(self, container: str, image_id: str) -> Root:
        self._fail("prepare_root")
        path = self._folder / container / "root"
        path.mkdir(parents=True, exist_ok=True)
        return self.made.setdefault(container, Root(container=container, image=image_id, path=str(path)))

    async def mount_root(self, container: str) -> Root:
        self._fail("mount_root")
        root = self._root(container)
        self.mounted.add(container)
        return root

    async def unmount_root(self, container: str) -> None:
        self._fail("unmount_root")
        self.mounted.discard(container)

    async def remove_root(self, container: str) -> None:
        self._fail("remove_root")
        self.mounted.discard(container)
        self.made.pop(container, None)

    def roots(self) -> Sequence[Root]:
        return list(self.made.values())

    async def root_usage(self, container: str) -> int:
        del container
        return 0
