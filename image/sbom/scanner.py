"""Running `image.sbom.scanjob` for the root of an image that was built.

Invariant: a process that nobody waits for any more is dead; what it says is bounded before it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import msgspec

from aio.subprocess import OUTPUT_CAP
from aio.warm import Warm
from image.sbom.packages import Inventory
from image.sbom.scanjob import Job, Result
from model.codec import UNREADABLE
from model.errors import Damaged, Exhausted, Internal

DEADLINE = 600.0
MAX_SAID = 64 << 20


class Scanner:
    def __init__(self) -> None:
        self._warm = Warm("image.sbom.scanjob")

    async def scan(self, root: str) -> Inventory:
        """Packages of the files mounted at `root`. Raises Exhausted, Unsupported, DeadlineExceeded."""
        said = await self._warm.run(_told(Job(root=root)), deadline=DEADLINE)
        result = answer(said)
        if result.error is not None:
            raise result.error.to_error()
        assert result.inventory is not None
        return result.inventory

    async def close(self) -> None:
        await self._warm.close()


def answer(said: bytes) -> Result:
    """Raises Damaged, Exhausted, Internal for what is none."""
    if not said:
        raise Damaged("listing the image's contents was killed: its files need more than honest ones do")
    if len(said) >= OUTPUT_CAP:
        raise Exhausted("the list of the image's contents is too long")
    try:
        reader = zlib.decompressobj()
        data = reader.decompress(said, MAX_SAID)
        if not reader.eof:
            raise Exhausted("the list of the image's contents is too long")
        return msgspec.msgpack.decode(data, type=Result)
    except (zlib.error, *UNREADABLE):
        words = said.decode(errors="replace").strip()[-300:]
        raise Internal(f"listing the image's contents failed: {words}") from None


async def _told(job: Job) -> AsyncIterator[bytes]:
    yield msgspec.msgpack.encode(job)
