"""Builds through a controller to a host: which one, what passes, sides that vanish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import pytest

from api.listen import serve_unix
from api.server import controller_app, runner
from image.build.base import Session
from model.build import BuildRequest, Done, Failed, Placed, Scan, Scanned, Start, StepSaid
from tests.support.buildclient import BuildClient
from tests.support.fakeports import FakeFleet
from tests.support.waiting import until

REQUEST = BuildRequest(dockerfile=b"FROM scratch\n", names=("a:1",))


class Door:
    def __init__(self, fleet: FakeFleet, socket: str) -> None:
        self.fleet = fleet
        self.socket = socket
        self.clients: list[BuildClient] = []

    async def request(self, *, upgrade: bool = True, query: Mapping[str, str]) -> tuple[bytes, BuildClient]:
        reader, writer = await asyncio.open_unix_connection(self.socket)
        wish = "Connection: Upgrade\r\nUpgrade: flota-build\r\n" if upgrade else ""
        start = f"POST /v1/builds?{urlencode(query)} HTTP/1.1\r\nHost: flota\r\n"
        writer.write(f"{start}{wish}Content-Length: 0\r\n\r\n".encode())
        self.clients.append(BuildClient(reader, writer))
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20), self.clients[-1]

    async def build(self, request: BuildRequest = REQUEST, **query: str) -> BuildClient:
        head, client = await self.request(query=query)
        assert b"101 Switching Protocols" in head and b"Upgrade: flota-build" in head
        client.say(Start(request=request))
        return client


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with FakeFleet(3) as fleet:
        app = runner(controller_app(fleet, fleet_id="fleet"))
        await app.setup()
        await serve_unix(app, str(tmp_path / "s"))
        made = Door(fleet, str(tmp_path / "s"))
        yield made
        for client in made.clients:
            client.close()
        await app.cleanup()


async def test_build_runs_on_a_host_and_its_client_hears_which_and_why(door: Door) -> None:
    client = await door.build(context="app")
    place = await client.hear(Placed)
    assert "cache" in place.why
    assert (await client.hear(Done)).names == ("a:1",)
    [host] = [h for h in door.fleet.hosts.values() if h.requests]
    assert host.name == place.host and host.requests == [REQUEST]
    client.close()
    await until(lambda: not any(door.fleet.builds.values()), deadline=20)
    again = await door.build(context="app")
    assert await again.hear(Placed) == place


async def test_build_on_a_named_host_runs_there(door: Door) -> None:
    for name in ("n3", "n1"):
        client = await door.build(host=name)
        assert await client.hear(Placed) == Placed(host=name, why="as you said")
        await client.hear(Done)


async def test_build_on_a_host_that_is_not_there_is_refused_with_words(door: Door) -> None:
    door.fleet.silent.update(door.fleet.hosts)
    head, client = await door.request(query={})
    assert b"503" in head and b"no host is ready" in await client.reader.read(1000)


async def test_build_without_an_upgrade_is_refused_with_a_hint(door: Door) -> None:
    head, client = await door.request(upgrade=False, query={})
    assert b"400" in head and b"Upgrade: flota-build" in await client.reader.read(1000)


async def test_questions_of_a_host_reach_the_client_and_its_answers_the_host(door: Door) -> None:
    async def build(request: BuildRequest, session: Session) -> Done:
        return Done(digest=await session.scan("", ("src",)))

    for host in door.fleet.hosts.values():
        host.building = build
    client = await door.build()
    scan = await client.hear(Scan)
    client.say(Scanned(ask=scan.ask, root="sha256:ab"))
    assert (await client.hear(Done)).digest == "sha256:ab"


async def waiting(request: BuildRequest, session: Session) -> Done:
    session.tell(StepSaid(step=1, data=b"begun"))
    await asyncio.Event().wait()
    return Done()


async def test_client_that_leaves_ends_the_build_on_its_host(door: Door) -> None:
    host = next(iter(door.fleet.hosts.values()))
    host.building = waiting
    client = await door.build(host=host.name)
    await client.hear(StepSaid)
    assert door.fleet.builds == {host.id: 1}
    client.close()
    await until(lambda: host.broken == [REQUEST], deadline=20)
    await until(lambda: door.fleet.builds == {host.id: 0}, deadline=20)


async def test_host_that_is_given_up_ends_the_build_in_words(door: Door) -> None:
    host = next(iter(door.fleet.hosts.values()))
    host.building = waiting
    client = await door.build(host=host.name)
    await client.hear(StepSaid)
    door.fleet.give_up("host n1 was lost")
    assert (await client.hear(Failed)).error.message == "host n1 was lost"
