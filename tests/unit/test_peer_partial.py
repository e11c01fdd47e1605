"""A blob on its way, piece by piece, when those that bring it are cut short."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from image.manifest import Descriptor
from image.peers.chunks import SMALLEST
from image.peers.partial import Partial
from image.reference import parse
from image.registry.source import Remote
from tests.support.images import digest
from tests.support.waiting import until


def made(data: bytes, path: Path, progress: Callable[[int], None] = lambda _: None) -> Partial:
    layer = Descriptor(digest=digest(data), size=len(data))
    remote = Remote(
        reference=parse("registry.example/app:1"),
        config=b"",
        parsed=None,  # type: ignore[arg-type]
        layers=(layer,),
        pinned="",
    )
    return Partial(layer, remote, path, progress)


async def test_a_whole_blob_whose_last_piece_was_not_hashed_in_time_is_verified(tmp_path: Path) -> None:
    """A fetch ends as soon as all pieces are there, whoever still waits to hash them."""
    data = bytes(range(256)) * 16
    partial = made(data, tmp_path / "layer")
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


async def test_a_piece_that_came_half_from_outside_is_taken_back_before_it_is_rewritten(
    tmp_path: Path,
) -> None:
    """Who follows the file may have read the half, which the peer's piece need not begin with."""
    path, data = tmp_path / "layer", bytes(3 * SMALLEST)
    seen: list[tuple[int, bytes]] = []
    half = SMALLEST + 1000
    partial = made(data, path, lambda n: seen.append((n, path.read_bytes()[SMALLEST:half])))
    try:
        partial.restart()
        path.write_bytes(b"x" * half)
        partial.reached(half)
        await partial.put(2, data[:SMALLEST])
        await partial.put(1, data[:SMALLEST])
    finally:
        partial.close()
    assert [n for n, _ in seen] == [half, SMALLEST, 3 * SMALLEST]
    assert seen[1][1] == b"x" * 1000, "it was told after the bytes had changed"
