"""The fleet's registry on a port of loopback, in plain HTTP: the request's login alone tells who asks."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from aio.clock import Clock, SystemClock
from api.server import runner
from image.registry.server.access import Caller, Grant
from image.registry.server.app import registry_app
from image.registry.server.limits import Limits
from image.registry.server.registry import Registry, opened
from model.errors import Unauthenticated
from tests.support.images import MANIFEST, Built, digest

SMALL = Limits(reserve=0)
ADMIN = Caller(name="admin", grants=(Grant(action="delete"),))
CALLERS: dict[str, Caller] = {
    "": ADMIN,
    "nobody": Caller(name="nobody", anonymous=True),
    "anybody": Caller(name="anybody", anonymous=True, grants=(Grant(action="pull"),)),
    "reader": Caller(name="reader", grants=(Grant(action="pull"),)),
    "writer": Caller(name="writer", grants=(Grant(action="push"),)),
    "team": Caller(name="team", grants=(Grant(action="push", prefix="team"),)),
}
"""By the user of the login; without one, an admin."""


def identify(request: web.Request) -> Caller:
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    user = base64.b64decode(word).decode().partition(":")[0] if scheme == "Basic" else ""
    if user not in CALLERS:
        raise Unauthenticated("this login is not known")
    return CALLERS[user]


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error in the specification's form."""
        assert self.headers["Content-Type"].startswith("application/json"), self
        (error,) = self.json["errors"]
        assert set(error) <= {"code", "message", "detail"} and error["message"]
        return str(error["code"])


class Client:
    """Says exactly what it is told to say."""

    def __init__(self, base: str, session: aiohttp.ClientSession, user: str = "") -> None:
        self.base = base
        self._session = session
        word = base64.b64encode(f"{user}:x".encode()).decode()
        self._login = {"Authorization": f"Basic {word}"} if user else {}

    def who(self, user: str) -> Client:
        return Client(self.base, self._session, user)

    async def ask(self, method: str, path: str, data: Any = None, **headers: str) -> Answer:
        """Header names with `_` for `-`."""
        named = self._login | {key.replace("_", "-"): value for key, value in headers.items()}
        if isinstance(data, bytes):
            data = io.BytesIO(data)
        url = URL(path if path.startswith("http") else f"{self.base}{path}", encoded=True)
        async with self._session.request(
            method, url, data=data, headers=named, allow_redirects=False
        ) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def begin(self, name: str) -> str:
        """The location of a new upload."""
        reply = await self.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert reply.status == 202, reply
        return reply.headers["Location"]

    async def push_blob(self, name: str, data: bytes) -> str:
        found = digest(data)
        where = await self.begin(name)
        reply = await self.ask("PUT", f"{where}{'&' if '?' in where else '?'}digest={found}", data)
        assert reply.status == 201, reply
        return found

    async def push_manifest(self, name: str, reference: str, data: bytes, kind: str = MANIFEST) -> Answer:
        return await self.ask("PUT", f"/v2/{name}/manifests/{reference}", data, Content_Type=kind)

    async def push(self, name: str, built: Built, *tags: str) -> None:
        for blob in built.blobs.values():
            await self.push_blob(name, blob)
        for tag in tags or (built.digest,):
            reply = await self.push_manifest(name, tag, built.manifest)
            assert reply.status == 201, reply


@dataclass
class Served:
    registry: Registry
    client: Client
    port: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def serving(
    folder: Path, *, limits: Limits = SMALL, clock: Clock | None = None
) -> AsyncIterator[Served]:
    async with opened(folder, clock or SystemClock(), limits) as registry:
        app = runner(registry_app(registry, identify))
        await app.setup()
        try:
            await web.TCPSite(app, "127.0.0.1", 0).start()
            port = app.addresses[0][1]
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                yield Served(registry, Client(f"http://127.0.0.1:{port}", session), port)
        finally:
            await app.cleanup()
