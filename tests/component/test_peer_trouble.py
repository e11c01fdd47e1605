"""Layers from hosts that can't be reached, are slow or talk nonsense: they cost a pull little, and once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from aiohttp import web

from controller.swarms import Place
from image.peers.client import Papers
from model.blobs import BlobPeer
from tests.component.test_peers import SlowRegistry, get, hosts, remote_of
from tests.support.images import digest
from tests.support.peerhosts import Fleet, PeerHost, listening


def peer_of(fleet: Fleet, host: PeerHost) -> BlobPeer:
    place = fleet.places[host.own]
    return BlobPeer(host=host.own, address=place.address, port=place.port)


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
