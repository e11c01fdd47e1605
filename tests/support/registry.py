"""A registry in this process, with faults on demand: requests are kept, answers can be bent."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.images import INDEX, MANIFEST, Built, digest


@dataclass
class FakeRegistry:
    """Serves `manifests` (by tag and digest) and `blobs` under any repository name."""

    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    login: tuple[str, str] | None = None
    """Needed by Basic, or by the token service when `token` is set."""
    token: str = ""
    cut_after: list[int] = field(default_factory=list)
    """Each blob request takes one: the connection breaks after so many bytes."""
    statuses: list[int] = field(default_factory=list)
    """Each request takes one: it is answered with that status."""
    blobs_at: str = ""
    """Blobs are redirected to this base URL."""
    ranges: bool = True
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(path, Authorization, Range) of each."""
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def push(self, built: Built, tag: str) -> None:
        self.blobs |= built.blobs
        self.manifests[tag] = self.manifests[built.digest] = (MANIFEST, built.manifest)

    def push_index(self, data: bytes, tag: str) -> None:
        self.manifests[tag] = self.manifests[digest(data)] = (INDEX, data)

    def asked(self, part: str) -> list[str]:
        """Paths of requests that hold `part`."""
        return [path for path, _, _ in self.requests if part in path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        self.requests.append((request.path, authorization, request.headers.get("Range", "")))
        if request.path == "/token":
            return self._token(authorization)
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        if (challenge := self._challenge(authorization)) is not None:
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        kind, _, name = request.path.rpartition("/")
        if kind.endswith("/manifests") and name in self.manifests:
            media_type, data = self.manifests[name]
            return web.Response(body=data, content_type=media_type)
        if kind.endswith("/blobs") and name in self.blobs:
            if self.blobs_at:
                return web.Response(status=307, headers={"Location": f"{self.blobs_at}{request.path}"})
            return await self._blob(request, self.blobs[name])
        error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
        return web.json_response({"errors": [error]}, status=404)

    def _challenge(self, authorization: str) -> str | None:
        if self.token:
            wanted = f"Bearer {self.token}"
            realm = f'Bearer realm="http://{self.host}/token",service="fake",scope="repository:app:pull"'
            return None if authorization == wanted else realm
        if self.login is not None and authorization != self._basic():
            return 'Basic realm="fake"'
        return None

    def _basic(self) -> str:
        assert self.login is not None
        return "Basic " + base64.b64encode(":".join(self.login).encode()).decode()

    def _token(self, authorization: str) -> web.Response:
        if self.login is not None and authorization != self._basic():
            return web.Response(status=401)
        return web.json_response({"token": self.token, "expires_in": 300})

    async def _blob(self, request: web.Request, data: bytes) -> web.StreamResponse:
        start = 0
        response = web.StreamResponse()
        wanted = request.headers.get("Range", "")
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - start
        await response.prepare(request)
        if self.cut_after:
            await response.write(data[start : start + self.cut_after.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data[start:])
        await response.write_eof()
        return response


@contextlib.asynccontextmanager
async def serving(registry: FakeRegistry) -> AsyncIterator[FakeRegistry]:
    """The registry on a free port of loopback."""
    app = web.Application()
    app.router.add_get("/{path:.*}", registry.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        registry.port = runner.addresses[0][1]
        yield registry
    finally:
        await runner.cleanup()
