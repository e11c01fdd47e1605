"""A blob on its way from a registry into a file: counted and hashed as it comes, never longer than announced,
and no slower than a floor, so that a server that feeds drop by drop holds nobody up for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable

from aio.supervisor import in_thread
from image.manifest import Descriptor
from model.errors import Damaged, Exhausted

GROUP = 1 << 20
"""Bytes that are hashed and written by one hop into a thread."""
FLOOR, WINDOW = 64 << 10, 60.0
"""Bytes that must come within so many seconds."""


class Sink:
    """A blob on its way into a file."""

    def __init__(self, fd: int, layer: Descriptor, progress: Callable[[int], None]) -> None:
        self._fd = fd
        self.layer = layer
        self.progress = progress
        self.size = 0
        self._hasher = hashlib.sha256()

    @property
    def complete(self) -> bool:
        return self.size == self.layer.size

    def take(self, data: bytes) -> None:
        if self.size + len(data) > self.layer.size:
            raise Damaged(
                f"layer {self.layer.digest[7:19]} is longer than the {self.layer.size} bytes announced"
            )
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise Exhausted(f"no space for layer {self.layer.digest[7:19]}: {error.strerror}") from error
        self._hasher.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """The registry can't resume: from the first byte again."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hasher = hashlib.sha256()
        self.size = 0

    def verify(self, host: str) -> None:
        if "sha256:" + self._hasher.hexdigest() != self.layer.digest:
            raise Damaged(f"registry {host}: layer {self.layer.digest[7:19]} does not match its digest")


async def receive(pieces: AsyncIterator[bytes], sink: Sink, *, window: float = WINDOW) -> None:
    """Also what came before the connection broke is kept. Raises TimeoutError below the floor."""
    held = bytearray()
    loop = asyncio.get_running_loop()
    due = sink.size + FLOOR
    try:
        async with asyncio.timeout(window) as patience:
            async for piece in pieces:
                held += piece
                if sink.size + len(held) >= due:
                    due = sink.size + len(held) + FLOOR
                    patience.reschedule(loop.time() + window)
                if len(held) >= GROUP:
                    group = bytes(held)
                    held.clear()
                    await in_thread(sink.take, group)
                    sink.progress(sink.size)
    finally:
        sink.take(bytes(held))
    sink.progress(sink.size)
