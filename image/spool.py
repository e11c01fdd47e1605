"""A stream of chunks into a temporary file, bounded."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aio.supervisor import in_thread
from model.errors import Exhausted

GROUP = 1 << 20


@contextlib.asynccontextmanager
async def spool(
    chunks: AsyncIterator[bytes], folder: Path, *, limit: int, progress: Callable[[int], None] | None = None
) -> AsyncIterator[Path]:
    """The whole stream in a file below `folder`, which goes when the block ends. Raises Exhausted beyond
    `limit` bytes or without space."""
    fd, name = tempfile.mkstemp(prefix="spool-", dir=folder)
    try:
        size = 0
        with os.fdopen(fd, "wb", buffering=0) as file:
            async for group in _grouped(chunks):
                size += len(group)
                if size > limit:
                    raise Exhausted(f"the stream has more than {limit} bytes")
                try:
                    await in_thread(_write, file.fileno(), group)
                except OSError as error:
                    raise Exhausted(f"cannot spool to {folder}: {error.strerror}") from error
                if progress is not None:
                    progress(size)
        yield Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


async def _grouped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Larger pieces, so that one hop into a thread serves many network reads."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) >= GROUP:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
