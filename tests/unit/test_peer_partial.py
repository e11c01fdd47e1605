"""A blob on its way, piece by piece, when those that bring it are cut short."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from image.manifest import Descriptor
from image.peers.partial import Partial
from image.reference import parse
from image.registry.source import Remote
from tests.support.images import digest
from tests.support.waiting import until


async def test_a_whole_blob_whose_last_piece_was_not_hashed_in_time_is_verified(tmp_path: Path) -> None:
    """A fetch ends as soon as all pieces are there, whoever still waits to hash them."""
    data = bytes(range(256)) * 16
    layer = Descriptor(digest=digest(data), size=len(data))
    remote = Remote(
        reference=parse("registry.example/app:1"),
        config=b"",
        parsed=None,  # type: ignore[arg-type]
        layers=(layer,),
        pinned="",
    )
    partial = Partial(layer, remote, tmp_path / "layer", lambda _: None)
    try:
        async with partial._hashing:  # another piece's turn
            put = asyncio.ensure_future(partial.put(0, data))
            await until(lambda: partial.complete, deadline=5)
            put.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await put
        assert await partial.verified()
    finally:
        partial.close()
