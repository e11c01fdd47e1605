"""Contexts that are answered for in this process by an event loop, such as a folder of this host.

Invariant: a folder of this host comes into the store by the same way as a client's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from aio.supervisor import in_thread
from image.context.objects import Lease, Objects
from image.context.receive import received
from image.context.scan import Scanner
from image.context.serve import FolderSource, Source, messages
from model.build import Object, Scan, Scanned, Want
from model.errors import ErrorBody, FlotaError, NotFound

_GROUP_BYTES, _GROUP = 4 << 20, 512
"""What is read by one hop into a thread."""


class Contexts:
    """The contexts of one build, by name."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    async def scanned(self, asked: Scan) -> Scanned:
        try:
            found: Scanned = await in_thread(self._source(asked.context).scan, asked.paths)
        except FlotaError as error:
            return Scanned(ask=asked.ask, error=ErrorBody.of(error))
        return Scanned(ask=asked.ask, root=found.root, warnings=found.warnings)

    async def objects(self, want: Want) -> AsyncIterator[Object]:
        """In the order asked for; it ends with the first that is gone."""
        wanted = messages(self._source(want.context), want)
        while group := await in_thread(_some, wanted):
            for message in group:
                yield message

    def _source(self, name: str) -> Source:
        source = self._sources.get(name)
        if source is None:
            raise NotFound(f"there is no build context {name!r}")
        return source


class _Here:
    def __init__(self, folder: str) -> None:
        self._contexts = Contexts({"": FolderSource(Scanner(folder))})

    async def scan(self, context: str, paths: Sequence[str]) -> Scanned:
        return await self._contexts.scanned(Scan(ask=0, context=context, paths=tuple(paths)))

    def want(self, context: str, digests: Sequence[str]) -> AsyncIterator[Object]:
        return self._contexts.objects(Want(ask=0, context=context, digests=tuple(digests)))


async def kept(objects: Objects, lease: Lease, folder: str) -> str:
    """The root's digest. Raises Exhausted, InvalidInput, Forbidden."""
    return await received(_Here(folder), objects, lease)


def _some(messages: Iterator[Object]) -> list[Object]:
    group: list[Object] = []
    size = 0
    for message in messages:
        group.append(message)
        size += len(message.data)
        if size >= _GROUP_BYTES or len(group) >= _GROUP:
            break
    return group
