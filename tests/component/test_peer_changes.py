"""Layers and images from hosts of which others know what was true a moment ago."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from aiohttp import web

from controller.swarms import Place
from image.peers.client import ImageDocuments, Papers
from image.peers.fetch import Fetch, Outcome
from model.blobs import BlobPeer
from model.codec import encode_json
from model.errors import Unavailable
from tests.component.test_peer_trouble import OneSwarm, peer_of
from tests.component.test_peers import SlowRegistry, get, get_all, hosts, remote_of
from tests.support.images import digest
from tests.support.peerhosts import Fleet, PeerHost, listening
from tests.support.waiting import until


async def test_a_host_that_could_not_be_reached_is_called_for_an_image_that_it_is_to_give(
    tmp_path: Path,
) -> None:
    """Its agent was started anew meanwhile."""
    fleet, wanted = Fleet(tmp_path), digest(b"image")
    given = ImageDocuments(documents=(b"{}",), config=b"{}")

    async def image(request: web.Request) -> web.Response:
        return web.Response(body=encode_json(given), content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/images/{digest}", image)
    giving = PeerHost(fleet, 99, SlowRegistry(b""))
    async with hosts(fleet, SlowRegistry(b""), 1) as (one,):
        with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody takes the calls
            fleet.places[giving.own] = Place(address="127.0.0.1", port=silent.getsockname()[1])
            with pytest.raises(Unavailable, match="can't be reached within"):
                await one.client.have(peer_of(fleet, giving), wanted, 1, 0, Papers())
        async with listening(fleet, giving.own, app, giving.called):
            peer = peer_of(fleet, giving)
            with pytest.raises(Unavailable, match="a moment ago"):
                await one.client.have(peer, wanted, 1, 0, Papers())
            assert await one.client.documents(peer, wanted, Papers()) == given
            assert not one.client.away()
    await giving.source.close()


async def test_a_host_whose_agent_starts_anew_is_asked_for_layers_again_soon(tmp_path: Path) -> None:
    fleet, data = Fleet(tmp_path), os.urandom(5000)
    with socket.socket() as unheard:  # bound, and nobody listens
        unheard.bind(("127.0.0.1", 0))
        async with hosts(fleet, SlowRegistry(data), 2) as (one, two):
            peer = BlobPeer(host=two.own, address="127.0.0.1", port=unheard.getsockname()[1])
            with pytest.raises(Unavailable):
                await one.client.piece(peer, digest(data), len(data), 0, Papers())
            assert one.client.away() == [two.own]
            await until(lambda: not one.client.away(), deadline=3)


async def test_a_host_that_removed_a_layer_and_gets_it_anew_is_followed(tmp_path: Path) -> None:
    """Its report of the removal is on its way yet; nobody else is sent outside for that."""
    fleet, data = Fleet(tmp_path), os.urandom((5 << 20) - 12345)
    registry = SlowRegistry(data)
    registry.pause = 0.05
    async with hosts(fleet, registry, 3) as made:
        fleet.swarms.told(made[0].own, [digest(data)])
        async with asyncio.TaskGroup() as group:
            first = group.create_task(get(made[0], remote_of(data)))
            await until(lambda: registry.sent > 0, deadline=5)
            assert await get_all(made[1:], remote_of(data)) == [data] * 2
        assert first.result() == data
    assert registry.sent == len(data)


async def test_a_host_that_has_only_a_part_of_what_it_is_said_to_have_is_followed(tmp_path: Path) -> None:
    fleet, data = Fleet(tmp_path), os.urandom((5 << 20) - 12345)
    registry, remote = SlowRegistry(data), remote_of(data)
    registry.pause = 0.05
    async with hosts(fleet, registry, 2) as (one, two):
        with two.partials.coming(remote.layers[0], remote, two.folder / "layer", lambda _: None) as partial:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(get(one, remote))
                await until(lambda: registry.sent > 0, deadline=5)
                known = peer_of(fleet, one)
                peer = BlobPeer(host=one.own, address=known.address, port=known.port, whole=True)
                fetch = Fetch(partial, OneSwarm(two.own, peer, fleet.ticket(two.enrolled)), two.client, "")
                async with asyncio.timeout(8):
                    assert await fetch.run() is Outcome.COMPLETE
                assert not fetch.without
            assert first.result() == data
            assert await partial.verified()
