"""What a host offers of images: the part of `api.ports.HostPort` that is about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from model.api import (
    FoundImage,
    ImageInfo,
    ImageRemoved,
)
from model.blobs import CopyImage
from model.buildcache import CacheFreed, CachePrune, HostCache
from model.disk import HostDisk
from model.image import ImageRecord, Progress
from model.registries import Login
from model.remoteimages import PushedIndex, PushIndex, RemoteImage


class HostImages(Protocol):
    def list_images(self) -> Sequence[ImageInfo]: ...

    def get_image(self, ref: str, platform: str = "") -> ImageInfo: ...

    def pull_image(
        self, ref: str, platform: str, login: Login, *, all_platforms: bool = False
    ) -> AsyncIterator[Progress]: ...

    def copy_image(self, request: CopyImage) -> AsyncIterator[Progress]: ...

    def push_image(
        self, ref: str, login: Login, *, platform: str = "", referrers: bool = False
    ) -> AsyncIterator[Progress]: ...

    async def push_index(self, ref: str, request: PushIndex, login: Login) -> PushedIndex:
        """An index under the tag `ref`."""
        ...

    def save_images(self, refs: Sequence[str], platform: str = "") -> AsyncIterator[bytes]: ...

    async def remote_image(
        self, ref: str, login: Login, *, config: bool = False, near: bool = False
    ) -> RemoteImage: ...

    async def check_login(self, registry: str, login: Login) -> None: ...

    async def remote_tags(self, ref: str, login: Login) -> Sequence[str]: ...

    async def search_images(self, term: str, limit: int, login: Login) -> Sequence[FoundImage]: ...

    def load_images(self, chunks: AsyncIterator[bytes], platform: str = "") -> AsyncIterator[Progress]: ...

    async def import_image(
        self,
        chunks: AsyncIterator[bytes],
        *,
        ref: str,
        message: str,
        changes: Sequence[str],
        platform: str = "",
    ) -> ImageRecord: ...

    async def tag_image(self, ref: str, name: str) -> ImageInfo: ...

    async def remove_image(self, ref: str, *, force: bool, platform: str = "") -> ImageRemoved: ...

    async def prune_images(self, *, all_unused: bool, chosen: Callable[[ImageRecord], bool]) -> ImageRemoved:
        """The nameless ones, or all, that nothing here or in the fleet needs."""
        ...

    async def make_room(self, to: int | None) -> ImageRemoved:
        """Images go as if the disk were looked at just now, or until it is `to` percent full at most."""
        ...

    async def build(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One build over this connection, in frames of `model.build`, until it is over or the client has
        gone."""
        ...

    async def build_cache(self) -> HostCache:
        """What builds keep."""
        ...

    async def prune_builds(self, wish: CachePrune) -> CacheFreed: ...

    async def disk_use(self) -> HostDisk: ...

    async def written(self, refs: Sequence[str]) -> Mapping[str, int]:
        """Bytes in the writable layers of these containers, or of all for none, by id."""
        ...
