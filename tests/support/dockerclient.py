"""A client of a Docker API with a fleet in memory behind it, and the connections that it takes over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from api.docker.app import docker_app
from api.docker.early import WatchedSite
from api.docker.state import State
from api.identity import ADMIN
from api.listen import serve_unix
from api.ports import Identity
from api.server import runner
from tests.support.fakeports import FakeFleet

DEADLINE = 10


class Docker:
    """A client of one served fleet, speaking version 1.41 unless it says otherwise."""

    def __init__(self, fleet: FakeFleet, socket: str, session: aiohttp.ClientSession, state: State) -> None:
        self.fleet = fleet
        self.socket = socket
        self.session = session
        self.state = state

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """(status, body): JSON decoded, else bytes."""
        if body is not None:
            more["json"] = body
        where = path if path.startswith("/v") else f"/v1.41{path}"
        async with asyncio.timeout(DEADLINE):
            async with self.session.request(method, f"http://docker{where}", **more) as reply:
                data = await reply.read()
        return reply.status, json.loads(data) if reply.content_type == "application/json" and data else data

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, value = await self.call(method, path, body, **more)
        assert status < 300, value
        return value

    async def create(self, *cmd: str, name: str = "", **config: Any) -> str:
        body = {"Image": "box:1", "Cmd": cmd, **config}
        ident: str = (await self.ok("POST", f"/containers/create?name={name}", body))["Id"]
        return ident

    async def run(self, *cmd: str, name: str = "", **config: Any) -> str:
        ident = await self.create(*cmd, name=name, **config)
        assert await self.call("POST", f"/containers/{ident}/start") == (204, b"")
        return ident

    @asynccontextmanager
    async def hijack(self, path: str, body: bytes = b"", upgrade: bool = True) -> AsyncIterator[Any]:
        """(head, reader, writer) of a connection taken over."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            more = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
            more += "Content-Type: application/json\r\n" if body else ""
            head = f"POST /v1.42{path} HTTP/1.1\r\nHost: docker\r\n{more}Content-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            async with asyncio.timeout(DEADLINE):
                answer = await reader.readuntil(b"\r\n\r\n")
            yield answer, reader, writer
        finally:
            writer.close()


@asynccontextmanager
async def served(tmp_path: Path, identity: Identity = ADMIN) -> AsyncIterator[Docker]:
    socket, state = str(tmp_path / "docker.sock"), State()
    async with FakeFleet() as fleet:
        app = runner(docker_app(fleet, lambda _: identity, state))
        await app.setup()
        await serve_unix(app, socket, site=WatchedSite)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
            yield Docker(fleet, socket, session, state)
        await state.close()
        await app.cleanup()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + size]))
        data = data[8 + size :]
    return found
