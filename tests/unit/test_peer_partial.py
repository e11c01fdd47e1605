"""A blob on its way, piece by piece, when those that bring it are cut short."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from image.manifest import Descriptor
from image.peers.chunks import SMALLEST
from image.peers.partial import Partial, Partials
from image.reference import parse
from image.registry.source import Remote
from tests.support.images import digest
from tests.support.waiting import until


def remote_of(data: bytes) -> Remote:
    layer = Descriptor(digest=digest(data), size=len(data))
    return Remote(
        reference=parse("registry.example/app:1"),
        config=b"",
        parsed=None,  # type: ignore[arg-type]
        layers=(layer,),
        pinned="",
    )


def made(data: bytes, path: Path, progress: Callable[[int], None] = lambda _: None) -> Partial:
    remote = remote_of(data)
    return Partial(remote.layers[0], remote, path, progress)


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


async def test_a_whole_blob_is_given_until_its_pull_has_ended(tmp_path: Path) -> None:
    """Its image is in the catalog only then, and other layers may take long."""
    partials = Partials(linger=0.05)
    paths = {data: tmp_path / data.hex() for data in (b"long", b"over")}
    try:
        for data, path in paths.items():  # the second's timer runs after the first's
            remote = remote_of(data)
            with partials.coming(remote.layers[0], remote, path, lambda _: None) as partial:
                path.write_bytes(data)
                assert digest(data) not in partials.whole()
                partial.whole = True
        paths[b"over"].unlink()
        await until(lambda: partials.find(digest(b"over")) is None, deadline=5)
        kept = partials.find(digest(b"long"))
        assert kept is not None and await kept.read(0, 4) == b"long"
        assert partials.whole() == {digest(b"long")}
        paths[b"long"].unlink()
        await until(lambda: partials.find(digest(b"long")) is None, deadline=5)
    finally:
        partials.close()
