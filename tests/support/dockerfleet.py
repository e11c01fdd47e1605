"""A real controller with hosts in memory (`tests.support.fleet`), its Docker API on a unix socket, and the
stock docker command run against it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from aio.clock import SystemClock
from aio.subprocess import Completed, run
from api.docker.app import docker_app, fleet_identity
from api.docker.ports import DockerPort
from api.docker.state import State
from api.listen import serve_unix
from api.server import runner
from tests.support.agents import make_host
from tests.support.fakeports import FakeFleet
from tests.support.fleet import Fleet, fleet

DOCKER = "/usr/bin/docker"
PATIENCE = 60.0


class DockerFleet:
    """Calling it runs `docker WORDS`; `call` is a request of one's own."""

    def __init__(self, made: Fleet | FakeFleet, socket: str, session: aiohttp.ClientSession) -> None:
        self.fleet = made
        self.socket = socket
        self.session = session

    @property
    def agents(self) -> Fleet:
        """The fleet of agents; of `docker_fake` there is none."""
        assert isinstance(self.fleet, Fleet)
        return self.fleet

    @property
    def controller(self) -> Any:
        return self.fleet.controller if isinstance(self.fleet, Fleet) else self.fleet

    async def attempt(self, *words: str) -> Completed:
        return await run(
            [DOCKER, "-H", f"unix://{self.socket}", *words],
            deadline=PATIENCE,
            env={"PATH": os.environ["PATH"], "HOME": str(Path(self.socket).parent)},
        )

    async def __call__(self, *words: str) -> str:
        done = await self.attempt(*words)
        assert done.code == 0, done.stderr
        return done.stdout.decode().strip()

    async def refusal(self, *words: str) -> str:
        """What a command that fails says."""
        done = await self.attempt(*words)
        assert done.code != 0, done.stdout
        return done.stderr.decode()

    async def inspect(self, *words: str) -> dict[str, Any]:
        """`docker WORDS inspect NAME`, the name last."""
        found: dict[str, Any] = json.loads(await self(*words[:-1], "inspect", words[-1]))[0]
        return found

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        """(status, what the JSON says)."""
        asked = self.session.request(method, f"http://docker{path}", json=body, params=query)
        async with asked as reply:
            text = await reply.text()
        return reply.status, json.loads(text) if text else None


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
