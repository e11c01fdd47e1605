"""A real controller with hosts in memory (`tests.support.fleet`), its Docker API on a unix socket, and the
stock docker command run against it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from aio.clock import SystemClock
from api.docker.app import docker_app, fleet_identity
from api.docker.ports import DockerPort
from api.docker.state import State
from api.listen import serve_unix
from api.server import runner
from tests.support.agents import make_host
from tests.support.dockercommand import DockerCommand
from tests.support.fakeports import FakeFleet
from tests.support.fleet import Fleet, fleet


class DockerFleet(DockerCommand):
    """At the fleet's socket."""

    def __init__(self, made: Fleet | FakeFleet, socket: str, session: aiohttp.ClientSession) -> None:
        super().__init__(socket, session)
        self.fleet = made

    @property
    def agents(self) -> Fleet:
        """The fleet of agents; of `docker_fake` there is none."""
        assert isinstance(self.fleet, Fleet)
        return self.fleet

    @property
    def controller(self) -> Any:
        return self.fleet.controller if isinstance(self.fleet, Fleet) else self.fleet


@contextlib.asynccontextmanager
async def docker_fleet(folder: Path, hosts: int = 2) -> AsyncIterator[DockerFleet]:
    socket = str(folder / "docker.sock")
    there = [make_host(number + 1) for number in range(hosts)]
    async with (
        fleet(*there, clock=SystemClock()) as made,
        _served(made.controller, socket) as session,
    ):
        yield DockerFleet(made, socket, session)


@contextlib.asynccontextmanager
async def docker_fake(folder: Path) -> AsyncIterator[DockerFleet]:
    """The same over a fake controller, whose hosts answer for themselves."""
    socket = str(folder / "docker.sock")
    async with FakeFleet() as made, _served(made, socket) as session:
        yield DockerFleet(made, socket, session)


@contextlib.asynccontextmanager
async def _served(port: DockerPort, socket: str) -> AsyncIterator[aiohttp.ClientSession]:
    state = State()
    app = runner(docker_app(port, fleet_identity("fleet"), state))
    await app.setup()
    await serve_unix(app, socket)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
        yield session
    await app.cleanup()
    await state.close()
