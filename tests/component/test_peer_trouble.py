"""Layers from hosts that can't be reached, are slow or talk nonsense: they cost a pull little, and once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from pathlib import Path

import pytest
from aiohttp import web

from agent.join import peer_contexts
from agent.servepeers import names
from controller.swarms import Place
from image.peers.client import SILENCE, Busy, Papers, PeerClient
from image.peers.fetch import Fetch
from image.peers.proof import proof
from image.peers.server import UPLOADS, block_size
from model.blobs import BlobPeer, BlobPeers, BlobWord
from model.errors import Unavailable
from model.ids import HostId
from tests.component.test_peers import SlowRegistry, get, hosts, remote_of
from tests.support.images import digest
from tests.support.peerhosts import FLEET, Fleet, PeerHost, listening
from tests.support.waiting import until


def peer_of(fleet: Fleet, host: PeerHost) -> BlobPeer:
    place = fleet.places[host.own]
    return BlobPeer(host=host.own, address=place.address, port=place.port)


class OneSwarm:
    """All that its controller knows is this peer."""

    def __init__(self, own: HostId, peer: BlobPeer, ticket: str = "") -> None:
        self.own = own
        self._answer = BlobPeers(peers=(peer,), ticket=ticket)

    async def ask(self, word: BlobWord) -> BlobPeers | None:
        return self._answer


def calls(server: socket.socket) -> int:
    """That came since they were counted last."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


async def test_a_host_that_cannot_be_reached_is_called_once_and_not_for_each_layer(tmp_path: Path) -> None:
    fleet, layers = Fleet(tmp_path), [os.urandom(5000), os.urandom(5000)]
    silent = PeerHost(fleet, 97, SlowRegistry(b""))
    with socket.create_server(("127.0.0.1", 0)) as server:  # nobody takes the calls
        server.setblocking(False)
        fleet.places[silent.own] = Place(address="127.0.0.1", port=server.getsockname()[1])
        fleet.swarms.told(silent.own, [digest(data) for data in layers])
        registry = SlowRegistry(layers[0])
        async with hosts(fleet, registry, 1) as (one,):
            assert await get(one, remote_of(layers[0])) == layers[0]
            assert calls(server)
            registry.data = layers[1]
            assert await get(one, remote_of(layers[1])) == layers[1]
            assert not calls(server)
    assert next(word for _, word in fleet.words if word.digest == digest(layers[1])).without == (silent.own,)
    await silent.source.close()


async def test_a_host_that_takes_no_call_is_not_asked_for_the_next_layer(tmp_path: Path) -> None:
    fleet, layers = Fleet(tmp_path), [os.urandom(5000), os.urandom(5000)]
    refusing = PeerHost(fleet, 96, SlowRegistry(b""))
    with socket.socket() as unheard:  # bound, and nobody listens
        unheard.bind(("127.0.0.1", 0))
        fleet.places[refusing.own] = Place(address="127.0.0.1", port=unheard.getsockname()[1])
        fleet.swarms.told(refusing.own, [digest(data) for data in layers])
        registry = SlowRegistry(layers[0])
        async with hosts(fleet, registry, 1) as (one,):
            assert await get(one, remote_of(layers[0])) == layers[0]
            registry.data = layers[1]
            assert await get(one, remote_of(layers[1])) == layers[1]
    assert next(word for _, word in fleet.words if word.digest == digest(layers[1])).without == (
        refusing.own,
    )
    await refusing.source.close()


async def test_questions_that_wait_for_news_hold_no_piece_up(tmp_path: Path) -> None:
    """Each of several pulls asks the one that fetches what it has by now."""
    fleet, data = Fleet(tmp_path), os.urandom(5000)
    asked, over = asyncio.Semaphore(0), asyncio.Event()

    async def have(request: web.Request) -> web.Response:
        asked.release()
        await over.wait()
        return web.json_response({"have": "1"})

    async def piece(request: web.Request) -> web.Response:
        return web.Response(status=206, body=data)

    app = web.Application()
    app.router.add_get("/v1/blobs/{digest}/have", have)
    app.router.add_get("/v1/blobs/{digest}", piece)
    giving = PeerHost(fleet, 95, SlowRegistry(b""))
    async with hosts(fleet, SlowRegistry(b""), 1) as (one,), listening(fleet, giving.own, app, giving.called):
        peer = peer_of(fleet, giving)
        async with asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(one.client.have(peer, digest(data), len(data), 0, Papers()))
            async with asyncio.timeout(8):
                for _ in range(12):
                    await asked.acquire()
                assert await one.client.piece(peer, digest(data), len(data), 0, Papers()) == data
            over.set()
    await giving.source.close()


async def test_a_piece_may_take_its_time_as_long_as_some_of_it_comes(tmp_path: Path) -> None:
    """Callers that share a host's rate get theirs slowly."""
    fleet, data = Fleet(tmp_path), os.urandom(5000)
    stops = False

    async def piece(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=206)
        response.content_length = len(data)
        await response.prepare(request)
        for start in range(0, len(data), 1000):
            await asyncio.sleep(60.0 if stops and start else 0.3)
            await response.write(data[start : start + 1000])
        return response

    app = web.Application()
    app.router.add_get("/v1/blobs/{digest}", piece)
    giving = PeerHost(fleet, 94, SlowRegistry(b""))
    asking = PeerClient(peer_contexts(fleet.enroll(93), tmp_path)[0], names(FLEET), silence=1.0)
    async with listening(fleet, giving.own, app, giving.called):
        peer, heard = peer_of(fleet, giving), 0

        def hear() -> None:
            nonlocal heard
            heard += 1

        assert await asking.piece(peer, digest(data), len(data), 0, Papers(), hear) == data
        assert heard == 5
        stops = True
        with pytest.raises(Unavailable, match="nothing for 1 s"):
            await asking.piece(peer, digest(data), len(data), 0, Papers())
        await asking.close()
    await giving.source.close()


async def test_a_part_that_waits_for_its_turn_is_not_taken_for_a_slow_callers(tmp_path: Path) -> None:
    fleet, data = Fleet(tmp_path), os.urandom(1 << 20)
    registry = SlowRegistry(data)
    slow = PeerHost(fleet, 1, registry, rate=1 << 19, patience=0.5)
    async with slow.serving(), PeerHost(fleet, 2, registry).serving() as two:
        assert await get(slow, remote_of(data)) == data
        assert await get(two, remote_of(data)) == data
    assert registry.sent == len(data)


@pytest.mark.parametrize("rate", [200_000, 1_500_000, 1 << 30])
def test_all_callers_get_some_of_their_pieces_before_they_give_up(rate: int) -> None:
    assert UPLOADS * block_size(rate) / rate < SILENCE / 2


async def test_a_piece_that_is_coming_counts_as_something(tmp_path: Path) -> None:
    """Else all that were asked would be left out whenever no piece is whole for a while."""
    fleet, data = Fleet(tmp_path), os.urandom(2000)
    asked, over = asyncio.Event(), asyncio.Event()

    async def piece(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=206)
        response.content_length = len(data)
        await response.prepare(request)
        asked.set()
        await asyncio.sleep(0.2)
        await response.write(data[:1000])
        await over.wait()
        await response.write(data[1000:])
        return response

    app = web.Application()
    app.router.add_get("/v1/blobs/{digest}", piece)
    giving = PeerHost(fleet, 92, SlowRegistry(b""))
    async with hosts(fleet, SlowRegistry(b""), 1) as (one,), listening(fleet, giving.own, app, giving.called):
        fleet.swarms.told(giving.own, [digest(data)])
        async with asyncio.TaskGroup() as group:
            going = group.create_task(get(one, remote_of(data)))
            await asked.wait()
            partial = one.partials.find(digest(data))
            assert partial is not None
            before = partial.touched
            await until(lambda: partial.touched > before, deadline=3)
            over.set()
        assert going.result() == data
    await giving.source.close()


@pytest.mark.parametrize("answers", [["0"], ["0", "1"]])
async def test_a_peer_that_answers_at_once_without_news_is_not_asked_all_the_time(
    tmp_path: Path, answers: list[str]
) -> None:
    fleet, data = Fleet(tmp_path), os.urandom(3 << 20)
    asked = 0

    async def have(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"have": answers[asked % len(answers)]})

    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=429)

    app = web.Application()
    app.router.add_get("/v1/blobs/{digest}", busy)
    app.router.add_get("/v1/blobs/{digest}/have", have)
    lying = PeerHost(fleet, 91, SlowRegistry(b""))
    async with hosts(fleet, SlowRegistry(data), 1) as (one,), listening(fleet, lying.own, app, lying.called):
        partial = one.partials.coming(
            remote_of(data).layers[0], remote_of(data), tmp_path / "x", lambda _: None
        )
        with partial as coming:
            fetch = Fetch(coming, OneSwarm(one.own, peer_of(fleet, lying)), one.client, "")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await fetch.run()
    assert 2 <= asked <= 8
    await lying.source.close()


async def test_a_host_that_asks_too_much_at_once_is_refused(tmp_path: Path) -> None:
    """So many questions wait for news, the next is refused at once; later it may ask again."""
    fleet, data = Fleet(tmp_path), os.urandom(5000)
    registry, remote = SlowRegistry(data), remote_of(data)
    giving = PeerHost(fleet, 9, registry, questions=3)
    async with giving.serving() as one, hosts(fleet, registry, 2) as (two, three):
        refused = told = 0

        async def ask(who: PeerHost) -> None:
            nonlocal refused, told
            papers = Papers(ticket=fleet.ticket(who.enrolled), proof=proof(b"{}", who.own))
            try:
                await who.client.have(peer_of(fleet, one), digest(data), len(data), 0, papers)
            except Busy:
                refused += 1
            else:
                told += 1

        with one.partials.coming(remote.layers[0], remote, tmp_path / "coming", lambda _: None):
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(ask(two))
                await until(lambda: refused == 2, deadline=8)
                await ask(three)
            await ask(two)
        assert (refused, told) == (2, 5)


async def test_a_peers_words_are_one_line_of_plain_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They go to the log of whoever asked."""
    fleet, data = Fleet(tmp_path), os.urandom(5000)

    async def fail(request: web.Request) -> web.Response:
        words = "no\n2026 level=error msg=forged\x1b[31m" + "x" * 5000
        return web.json_response({"code": "not_found", "message": words}, status=404)

    app = web.Application()
    app.router.add_get("/v1/blobs/{digest}", fail)
    rude = PeerHost(fleet, 90, SlowRegistry(b""))
    async with hosts(fleet, SlowRegistry(data), 1) as (one,), listening(fleet, rude.own, app, rude.called):
        fleet.swarms.told(rude.own, [digest(data)])
        with caplog.at_level(logging.INFO, "flota.image"):
            assert await get(one, remote_of(data)) == data
    said = [record.getMessage() for record in caplog.records if "level=error" in record.getMessage()]
    assert said and all(text.isprintable() and len(text) < 300 for text in said)
    assert "no\\n2026" in said[0]
    await rude.source.close()


async def test_a_hosts_second_fetch_of_a_layer_does_not_take_back_that_it_gets_it_for_all(
    tmp_path: Path,
) -> None:
    """Else another host would be sent outside too."""
    fleet, data, over = Fleet(tmp_path), os.urandom(5 << 20), asyncio.Event()
    registry, remote = SlowRegistry(data), remote_of(data)
    registry.pause = 0.2

    async def hang(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response(status=404)

    app = web.Application()
    app.router.add_get("/v1/blobs/{digest}", hang)
    late = PeerHost(fleet, 89, registry)
    async with hosts(fleet, registry, 2) as (one, two), listening(fleet, late.own, app, late.called):
        third = BlobWord(digest=digest(data), without=(late.own,))

        def sent_outside() -> bool:
            return fleet.swarms.answer(two.own, third, fleet.places, fleet.clock.monotonic()).outside

        def second() -> list[str]:
            return [word.state for _, word in fleet.words[1:]]

        async with asyncio.TaskGroup() as group:
            first = group.create_task(get(one, remote))
            await until(lambda: registry.sent > 0, deadline=5)
            fleet.swarms.told(late.own, [digest(data)])
            other = one.folder / "other"
            again = group.create_task(one.source.download(remote, remote.layers[0], other, lambda _: None))
            await until(lambda: second()[:2] == ["wanted", "fetching"], deadline=3)
            assert not sent_outside()
            said = len(fleet.words)
            again.cancel()
            await until(lambda: len(fleet.words) > said and again.done(), deadline=3)
            assert not sent_outside()
            over.set()
            first.cancel()
    await late.source.close()
