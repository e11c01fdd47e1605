"""Single files of a folder of the client: an OCI layout that an image, or a build's cache, is in.

They come as files of a context do: only what is asked for, only what is not here yet. Invariant: a blob is
given under no other digest than its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from aio.supervisor import in_thread
from image.build.base import Session
from image.context.find import find, regular
from image.context.objects import Objects
from image.manifest import MAX_BLOB, Descriptor
from model.contexttree import Entry
from model.errors import Damaged


class ClientFolder:
    """`image.build.clientlayout.Folder`."""

    def __init__(self, session: Session, objects: Objects) -> None:
        self._session = session
        self._objects = objects

    async def read(self, context: str, path: str, limit: int) -> bytes:
        entry = await self._entry(context, path, limit)
        data: bytes = await in_thread(self._objects.read, entry.digest, limit)
        return data

    async def copy(self, context: str, path: str, layer: Descriptor, target: Path) -> None:
        entry = await self._entry(context, path, MAX_BLOB)
        if (entry.digest, entry.size) != (layer.digest, layer.size):
            raise Damaged(f"{path} is not what its name says")
        await in_thread(shutil.copyfile, self._objects.path(entry.digest), target)

    async def _entry(self, context: str, path: str, limit: int) -> Entry:
        root = await self._session.scan(context, (path,))
        return regular(find(self._objects.tree, root, path), path, limit)
