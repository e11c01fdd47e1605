"""The image half of this host's own API: progress as a stream, work that goes on whatever the reader does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from agent import diskuse, happenings
from agent.buildroom import BuildRoom
from agent.builds import Builds
from agent.host import HostAgent
from aio.mailbox import Dropped, Feed
from image.base import Images, OnProgress, PushWish
from image.indexes import media_type_of
from image.manifest import Index
from image.peers.source import PeerSource
from image.reference import familiar, parse
from image.registry.source import IndexPush
from model.api import (
    FoundImage,
    ImageInfo,
    ImageRemoved,
)
from model.blobs import CopyImage
from model.buildcache import CacheFreed, CachePrune, HostCache
from model.disk import HostDisk
from model.errors import FlotaError, InvalidInput, Unsupported, WrongState
from model.image import ImageRecord, Progress
from model.registries import Login
from model.remoteimages import PushedIndex, PushIndex, RemoteImage
from model.status import Platform

BACKLOG = 1000
"""Progress lines kept for a slow reader; the oldest go first, which loses nothing that matters."""


class ImageApi:
    def __init__(self, agent: HostAgent, builds: Builds | None = None, room: BuildRoom | None = None) -> None:
        self._agent = agent
        self._builds = builds
        self._room = room

    @property
    def _images(self) -> Images:
        return self._agent.context.images

    def list_images(self) -> Sequence[ImageInfo]:
        return [self._info(image) for image in self._images.list()]

    def get_image(self, ref: str, platform: str = "") -> ImageInfo:
        return self._info(self._images.find(ref, platform))

    async def pull_image(
        self, ref: str, platform: str, login: Login, *, all_platforms: bool = False
    ) -> AsyncIterator[Progress]:
        if all_platforms and platform:
            raise InvalidInput("--all-platforms goes without --platform")

        async def work(say: OnProgress) -> Sequence[ImageRecord]:
            if all_platforms:
                return await self._images.pull_all(ref, progress=say, login=login)
            return [await self._images.pull(ref, platform=platform, progress=say, login=login)]

        async for line in self._transfer("pull", work):
            yield line

    async def copy_image(self, request: CopyImage) -> AsyncIterator[Progress]:
        source = self._images.source
        if not isinstance(source, PeerSource):
            raise Unsupported("this host gets no images from others")
        peers = source

        async def work(say: OnProgress) -> Sequence[ImageRecord]:
            with peers.offered(request):
                image = await self._images.pull(request.ref, progress=say)
            if not means(image, request.digest):
                raise WrongState(
                    f"{familiar(request.ref)} was being pulled here meanwhile, and is another image",
                    hint="Copy it again once that pull has ended",
                )
            return [image]

        async for line in self._transfer("pull", work):
            yield line

    async def push_image(
        self, ref: str, login: Login, *, platform: str = "", referrers: bool = False
    ) -> AsyncIterator[Progress]:
        wish = PushWish(platform=platform, referrers=referrers)

        async def work(say: OnProgress) -> Sequence[ImageRecord]:
            image = await self._images.push(ref, wish, login=login, progress=say)
            return [replace(image, names=(ref,))]

        async for line in self._transfer("push", work):
            yield line

    async def push_index(self, ref: str, request: PushIndex, login: Login) -> PushedIndex:
        data = request.document.encode()
        index = IndexPush(
            reference=parse(ref),
            data=data,
            media_type=media_type_of(data),
            origins=tuple(parse(origin) for origin in request.origins),
        )
        return PushedIndex(digest=await self._images.source.push_index(index, login))

    def save_images(self, refs: Sequence[str], platform: str = "") -> AsyncIterator[bytes]:
        return self._images.save(refs, platform)

    async def remote_image(
        self, ref: str, login: Login, *, config: bool = False, near: bool = False
    ) -> RemoteImage:
        source = self._images.source
        document = await source.document(parse(ref), login, near=near)
        found: list[Platform] = []
        if isinstance(document.parsed, Index):
            found = [entry.platform for entry in document.parsed.manifests if entry.platform]
        elif config:
            one = replace(parse(ref), digest=document.digest)
            found = [(await source.resolve(one, Platform(), login)).parsed.platform]
        platforms = tuple("/".join(filter(None, (p.os, p.arch, p.variant))) for p in found)
        return RemoteImage(
            ref=ref,
            digest=document.digest,
            media_type=document.media_type,
            size=len(document.data),
            document=document.data.decode("utf-8"),
            platforms=platforms,
        )

    async def check_login(self, registry: str, login: Login) -> None:
        await self._images.source.check_login(registry, login)

    async def remote_tags(self, ref: str, login: Login) -> Sequence[str]:
        return await self._images.source.tags(parse(ref), login)

    async def search_images(self, term: str, limit: int, login: Login) -> Sequence[FoundImage]:
        return await self._images.source.search(term, limit, login)

    async def load_images(self, chunks: AsyncIterator[bytes], platform: str = "") -> AsyncIterator[Progress]:
        async def work(say: OnProgress) -> Sequence[ImageRecord]:
            loaded = await self._images.load(chunks, platform=platform, progress=say)
            return [named for one in loaded for named in _by_name(one)]

        async for line in self._transfer("load", work):
            yield line

    async def _transfer(
        self, action: str, work: Callable[[OnProgress], Awaitable[Sequence[ImageRecord]]]
    ) -> AsyncIterator[Progress]:
        """Lines as they come, the last one per image names it; a failure is the last line."""
        feed: Feed[Progress] = Feed(BACKLOG)
        hostname = self._agent.context.facts.hostname

        async def run() -> None:
            try:
                for image in await work(feed.put):
                    name = familiar(image.names[-1]) if image.names else image.id
                    self._happened(action, image)
                    feed.put(Progress(status="done", image=name, host=hostname))
            except FlotaError as error:
                feed.put(Progress(status="failed", error=str(error), error_code=error.code, host=hostname))
            finally:
                feed.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(run())
            async for item in feed:
                if not isinstance(item, Dropped):
                    yield item

    async def import_image(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ref: str,
        message: str,
        changes: Sequence[str],
        platform: str = "",
    ) -> ImageRecord:
        image = await self._images.import_tar(
            chunks, ref=ref, message=message, changes=changes, platform=platform
        )
        self._happened("import", image)
        return image

    async def tag_image(self, ref: str, name: str) -> ImageInfo:
        image = await self._images.tag(ref, name)
        self._happened("tag", image)
        return self._info(image)

    async def remove_image(self, ref: str, *, force: bool, platform: str = "") -> ImageRemoved:
        """Without a platform those of all that came together."""
        one = self._images.find(ref, platform).id if platform else ref
        removed = await self._images.remove(one, force=force, family=not platform)
        for ident in removed.deleted:
            self._happened("delete", ImageRecord(id=ident))
        return self._here(removed)

    async def prune_images(self, *, all_unused: bool, chosen: Callable[[ImageRecord], bool]) -> ImageRemoved:
        return self._here(await self._agent.context.room.prune(all_unused=all_unused, chosen=chosen))

    async def make_room(self, to: int | None) -> ImageRemoved:
        return self._here(await self._agent.context.room.tidy(to))

    async def disk_use(self) -> HostDisk:
        builds = await self._room.usage() if self._room is not None else None
        return await diskuse.measure(self._agent.context, *([builds] if builds is not None else ()))

    async def written(self, refs: Sequence[str]) -> Mapping[str, int]:
        return await diskuse.written(self._agent.context, refs)

    # -- builds -------------------------------------------------------------------------------------
    async def build(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._builds is None:
            raise Unsupported("this host builds no images")
        await self._builds.serve(reader, writer)

    async def build_cache(self) -> HostCache:
        return await self._room.cached() if self._room is not None else HostCache()

    async def prune_builds(self, wish: CachePrune) -> CacheFreed:
        return await self._room.prune(wish) if self._room is not None else CacheFreed()

    def _here(self, removed: ImageRemoved) -> ImageRemoved:
        return replace(removed, host=self._agent.context.facts.hostname)

    def _info(self, image: ImageRecord) -> ImageInfo:
        users = [r for r in self._agent.context.records.values() if r.image_id == image.id]
        return ImageInfo(image=image, host=self._agent.context.facts.hostname, containers=len(users))

    def _happened(self, action: str, image: ImageRecord) -> None:
        context = self._agent.context
        self._agent.reporter.event(happenings.of_image(context, action, image))
        context.room.bell.ring()


def _by_name(image: ImageRecord) -> list[ImageRecord]:
    """Once for each of its names, or as it is."""
    return [replace(image, names=(name,)) for name in image.names] or [image]


def means(image: ImageRecord, digest: str) -> bool:
    """Whether it is the image that is known by this digest, its own or a document's."""
    return digest in (image.id, *(known.partition("@")[2] for known in image.digests))
