"""A folder of this host as a context: brought into the store by the same way as a client's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from image.context.objects import Lease, Objects
from image.context.receive import received
from image.context.scan import Scanner
from image.context.serve import Contexts, FolderSource
from model.build import Object, Scan, Scanned, Want


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
