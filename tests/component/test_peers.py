"""Layers from other hosts: what comes from whom, what is left to the registry, what nobody is given."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from aio.together import together
from image.manifest import Descriptor
from image.peers.client import Papers
from image.peers.proof import proof
from image.reference import Reference, parse
from image.registry.source import NoSource, Remote
from model.blobs import BlobPeer, BlobPeers, CopyImage
from model.errors import Unavailable
from model.ids import HostId
from model.registries import NOBODY, Login
from model.status import Platform
from tests.support.images import Built, digest, image
from tests.support.peerhosts import Fleet, PeerHost, listening
from tests.support.waiting import until

AMD64 = Platform(os="linux", arch="amd64")
PIECES = 5


class SlowRegistry(NoSource):
    """One layer of several pieces; counts what leaves it. `down` once it is to break, after so many bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent = 0
        self.breaks_after = -1
        self.pause = 0.01

    async def download(
        self, remote: Remote, layer: Descriptor, path: Path, progress: Callable[[int], None]
    ) -> None:
        with open(path, "wb", buffering=0) as file:
            for start in range(0, len(self.data), 1 << 18):
                if 0 <= self.breaks_after <= start:
                    raise Unavailable("the registry is down")
                part = self.data[start : start + (1 << 18)]
                file.write(part)
                self.sent += len(part)
                progress(file.tell())
                await asyncio.sleep(self.pause)


@pytest.fixture
def data() -> bytes:
    return os.urandom((PIECES << 20) - 12345)


def remote_of(data: bytes, manifest: bytes = b"{}") -> Remote:
    built: Built = image([b"x"])
    layer = Descriptor(digest=digest(data), size=len(data))
    return Remote(
        reference=parse("registry.example/app:1"),
        config=built.config,
        parsed=None,  # type: ignore[arg-type]
        layers=(layer,),
        pinned=f"registry.example/app@{digest(manifest)}",
        manifest=manifest,
    )


@contextlib.asynccontextmanager
async def hosts(fleet: Fleet, registry: NoSource, count: int, rate: int = 0) -> AsyncIterator[list[PeerHost]]:
    async with contextlib.AsyncExitStack() as stack:
        made = [PeerHost(fleet, number + 1, registry, rate=rate) for number in range(count)]
        yield [await stack.enter_async_context(one.serving()) for one in made]


async def get(host: PeerHost, remote: Remote) -> bytes:
    path = host.folder / "layer"
    said: list[int] = []
    await host.source.download(remote, remote.layers[0], path, said.append)
    assert not said or said[-1] == remote.layers[0].size
    return path.read_bytes()


async def get_all(those: Sequence[PeerHost], remote: Remote) -> list[bytes]:
    return list(await together([get(one, remote) for one in those]))


async def test_hosts_that_begin_together_fetch_a_layer_once_from_outside(tmp_path: Path, data: bytes) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    registry.pause = 0.06
    async with hosts(fleet, registry, 5, rate=4 << 20) as made:
        assert await get_all(made, remote_of(data)) == [data] * 5
    assert registry.sent == len(data)
    assert sum(one.server.given for one in made) >= 4 * len(data)


async def test_a_layer_that_a_host_has_whole_is_not_fetched_from_outside_again(
    tmp_path: Path, data: bytes
) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    async with hosts(fleet, registry, 2) as (one, two):
        assert await get(one, remote_of(data)) == data
        assert await get(two, remote_of(data)) == data
    assert registry.sent == len(data)


async def test_hosts_whose_certificates_are_renewed_give_and_get_layers_as_before(
    tmp_path: Path, data: bytes
) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    async with hosts(fleet, registry, 2) as (one, two):
        assert await get(one, remote_of(data)) == await get(two, remote_of(data)) == data
        for renewed in ((two,), (one, two)):  # its connections to `one` are still open
            for host in renewed:
                await host.renew()
            registry.data, registry.sent = os.urandom(len(data)), 0
            assert await get(one, remote_of(registry.data)) == registry.data
            assert await get(two, remote_of(registry.data)) == registry.data
            assert registry.sent == len(data), "the second comes from the first"


async def test_a_layer_comes_from_the_registry_while_the_controller_is_away(
    tmp_path: Path, data: bytes
) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    fleet.away = True
    async with hosts(fleet, registry, 2) as made:
        assert await get_all(made, remote_of(data)) == [data] * 2
    assert registry.sent == 2 * len(data)


async def test_a_host_that_has_not_seen_the_manifest_gets_nothing_from_others(
    tmp_path: Path, data: bytes
) -> None:
    """It knows the layer's digest and the manifest's."""
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    async with hosts(fleet, registry, 2) as (one, two):
        await get(one, remote_of(data, b'{"private": 1}'))
        before = registry.sent
        assert await get(two, remote_of(data, b'{"guessed": 1}')) == data
        assert registry.sent == before + len(data)
        place = fleet.places[one.own]
        peer = BlobPeer(host=one.own, address=place.address, port=place.port, whole=True)
        word = proof(b'{"private": 1}', one.own)  # another host's, seen somewhere
        with pytest.raises(Unavailable, match="404"):
            await two.client.have(
                peer, digest(data), len(data), 0, Papers(ticket=fleet.ticket(two.enrolled), proof=word)
            )


@pytest.mark.parametrize("fault", ["none", "another's", "old", "unsigned"])
async def test_a_ticket_that_is_not_good_opens_nothing(tmp_path: Path, data: bytes, fault: str) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    async with hosts(fleet, registry, 2) as (one, two):
        await get(one, remote_of(data))
        good = fleet.ticket(two.enrolled)
        stranger = Fleet(tmp_path)
        ticket = {
            "none": "",
            "another's": fleet.ticket(one.enrolled),
            "old": fleet.ticket(two.enrolled, until=1.0),
            "unsigned": stranger.ticket(two.enrolled),
        }[fault]
        place = fleet.places[one.own]
        peer = BlobPeer(host=one.own, address=place.address, port=place.port, whole=True)
        shown = proof(b"{}", two.own)
        with pytest.raises(Unavailable, match="403"):
            await two.client.have(peer, digest(data), len(data), 0, Papers(ticket=ticket, proof=shown))
        assert await two.client.have(peer, digest(data), len(data), 0, Papers(ticket=good, proof=shown))


async def test_a_peer_that_gives_wrong_bytes_is_found_out_and_asked_nothing_more(
    tmp_path: Path, data: bytes
) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    asked: list[str] = []

    async def lie(request: web.Request) -> web.Response:
        asked.append(request.path)
        start, end = request.headers["Range"].removeprefix("bytes=").split("-")
        return web.Response(status=206, body=bytes(int(end) - int(start) + 1))

    liar = PeerHost(fleet, 99, registry)
    app = web.Application()
    app.router.add_get("/v1/blobs/{digest}", lie)
    async with hosts(fleet, registry, 1) as (one,), listening(fleet, liar.own, app, liar.called):
        fleet.swarms.told(liar.own, [digest(data)])
        assert await get(one, remote_of(data)) == data
        assert asked
        asked.clear()
        assert await get(one, remote_of(data)) == data
        assert not asked
    await liar.source.close()


async def test_a_peer_that_dies_midway_leaves_its_pieces_to_others(tmp_path: Path, data: bytes) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    died = asyncio.Event()

    async def die(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=206)
        response.content_length = 1 << 20
        await response.prepare(request)
        await response.write(bytes(1000))
        died.set()
        assert request.transport is not None
        request.transport.abort()
        return response

    dying = PeerHost(fleet, 98, registry)
    app = web.Application()
    app.router.add_get("/v1/blobs/{digest}", die)
    async with hosts(fleet, registry, 3) as (_, two, three), listening(fleet, dying.own, app, dying.called):
        assert await get(three, remote_of(data)) == data
        fleet.swarms.told(dying.own, [digest(data)])
        assert await get(two, remote_of(data)) == data
        assert died.is_set()
    assert registry.sent == len(data)
    await dying.source.close()


async def test_another_host_that_answers_at_a_peers_address_is_not_believed(
    tmp_path: Path, data: bytes
) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    async with hosts(fleet, registry, 2) as (one, two):
        await get(one, remote_of(data))
        place = fleet.places[one.own]
        peer = BlobPeer(host=HostId("b" * 64), address=place.address, port=place.port, whole=True)
        papers = Papers(ticket=fleet.ticket(two.enrolled), proof=proof(b"{}", two.own))
        with pytest.raises(Exception, match="another host answers"):
            await two.client.piece(peer, digest(data), len(data), 0, papers)


async def test_a_controller_that_goes_away_midway_sends_nobody_outside(tmp_path: Path, data: bytes) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    async with hosts(fleet, registry, 2, rate=2 << 20) as (one, two):
        assert await get(one, remote_of(data)) == data
        going = asyncio.ensure_future(get(two, remote_of(data)))
        try:
            await until(lambda: one.server.given > 0, deadline=10)
            fleet.away = True
            assert await going == data
        finally:
            going.cancel()
    assert registry.sent == len(data)


async def test_an_image_without_a_manifest_is_given_by_a_ticket_alone(tmp_path: Path, data: bytes) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    async with hosts(fleet, registry, 2) as (one, two):
        await get(one, remote_of(data, b""))
        place = fleet.places[one.own]
        peer = BlobPeer(host=one.own, address=place.address, port=place.port, whole=True)
        papers = Papers(ticket=fleet.ticket(two.enrolled), proof=proof(b"", two.own))
        with pytest.raises(Unavailable, match="404"):
            await two.client.have(peer, digest(data), len(data), 0, papers)
        named = Papers(ticket=fleet.ticket(two.enrolled, digest(b"")))
        assert await two.client.have(peer, digest(data), len(data), 0, named)


async def test_a_registry_that_breaks_before_anybody_has_all_fails_the_pull_with_its_words(
    tmp_path: Path, data: bytes
) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    registry.breaks_after = 2 << 20
    async with hosts(fleet, registry, 1) as (one,):
        with pytest.raises(Unavailable, match="registry is down"):
            await get(one, remote_of(data))
        assert not one.partials.all()


async def test_what_is_named_by_its_digest_is_not_what_a_copy_brings_by_that_name(
    tmp_path: Path, data: bytes
) -> None:
    """A copy takes its time; a container of another image by that name may start meanwhile."""
    remote = remote_of(data)

    class Resolving(NoSource):
        async def resolve(self, reference: Reference, platform: Platform, login: Login = NOBODY) -> Remote:
            return remote

    copy = CopyImage(ref="registry.example/app:1", digest=digest(b"a copy's"), answer=BlobPeers())
    async with hosts(Fleet(tmp_path), Resolving(), 1) as (one,):
        with one.source.offered(copy):
            other = parse(f"registry.example/app:1@{digest(b'another')}")
            assert await one.source.resolve(other, AMD64) is remote
            with pytest.raises(Unavailable, match="no host gives"):
                await one.source.resolve(parse("registry.example/app:1"), AMD64)


async def test_a_part_that_ends_midway_is_broken_off_and_not_filled_with_an_error(
    tmp_path: Path, data: bytes
) -> None:
    fleet, registry = Fleet(tmp_path), SlowRegistry(data)
    async with hosts(fleet, registry, 2) as (one, two):
        await get(one, remote_of(data))
        os.truncate(one.folder / "layer", (1 << 20) - 100)  # its transfer began again
        place = fleet.places[one.own]
        peer = BlobPeer(host=one.own, address=place.address, port=place.port, whole=True)
        papers = Papers(ticket=fleet.ticket(two.enrolled), proof=proof(b"{}", two.own))
        with pytest.raises(Unavailable):
            await two.client.piece(peer, digest(data), len(data), 0, papers)
