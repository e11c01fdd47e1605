"""A registry in this process, with faults on demand: requests are kept, answers can be bent."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
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
    open: bool = False
    """Whoever shows no login comes in, too."""
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
    uploads: dict[str, bytearray] = field(default_factory=dict)
    """Begun and not finished, by their ids."""
    drop_after: list[int] = field(default_factory=list)
    """Each PATCH takes one: after so many bytes of it the connection breaks."""
    forgets: bool = False
    """Of a broken upload nothing is known any more."""
    mountable: set[str] = field(default_factory=set)
    """Repositories that have every blob."""
    mounted: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    """Sorted, of its repositories, and of each one's tags; empty: it tells nobody."""
    shortest: int = 0
    """Pages have no more names than that, whatever is asked for, and a Link to the next; 0: as asked for."""
    identity: str = ""
    """An identity token that the token service takes (OAuth 2's POST)."""
    retry_after: str = ""
    always_challenges: bool = False
    """No token is ever good."""
    acts: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of each."""
    scopes: list[list[str]] = field(default_factory=list)
    """What each token was asked for."""
    referrers: bool = True
    """It lists what refers to a manifest (OCI 1.1)."""
    received: int = 0
    """Bytes of blobs that were uploaded."""

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
        self.acts.append((request.method, request.path))
        if request.path == "/token":
            return await self._token(request, authorization)
        if self.statuses:
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.Response(status=self.statuses.pop(0), headers=headers)
        if (challenge := self._challenge(authorization)) is not None:
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if request.path == "/v2/":
            return web.Response()
        if request.path == "/v2/_catalog" and self.names:
            return self._page(request, "repositories")
        if request.method not in ("GET", "HEAD") or "/uploads/" in request.path:
            return await self._pushed(request)
        if request.path.endswith("/tags/list") and self.names:
            return self._page(request, "tags")
        kind, _, name = request.path.rpartition("/")
        if kind.endswith("/referrers") and self.referrers:
            return web.Response(body=self._referring(name), content_type=INDEX)
        if kind.endswith("/manifests") and name in self.manifests:
            media_type, data = self.manifests[name]
            return web.Response(body=data, content_type=media_type)
        if kind.endswith("/blobs") and name in self.blobs and request.method == "HEAD":
            return web.Response()
        if kind.endswith("/blobs") and name in self.blobs:
            if self.blobs_at:
                return web.Response(status=307, headers={"Location": f"{self.blobs_at}{request.path}"})
            return await self._blob(request, self.blobs[name])
        error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
        return web.json_response({"errors": [error]}, status=404)

    def _referring(self, subject: str) -> bytes:
        entries = []
        for name, (media_type, data) in self.manifests.items():
            document = json.loads(data)
            if name == digest(data) and document.get("subject", {}).get("digest") == subject:
                more = {"artifactType": document.get("artifactType", "")}
                entries.append({"mediaType": media_type, "digest": name, "size": len(data), **more})
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()

    def _page(self, request: web.Request, what: str) -> web.Response:
        after = [name for name in self.names if name > request.query.get("last", "")]
        page = after[: self.shortest or int(request.query["n"])]
        headers = {}
        if self.shortest and len(page) < len(after):
            headers["Link"] = f'<http://elsewhere.example{request.path}?last={page[-1]}>; rel="next"'
        return web.json_response({"name": "app", what: page}, headers=headers)

    def _challenge(self, authorization: str) -> str | None:
        if self.open and not authorization:
            return None
        if self.token or self.always_challenges:
            wanted = f"Bearer {self.token}"
            realm = f'Bearer realm="http://{self.host}/token",service="fake",scope="repository:app:pull"'
            return None if authorization == wanted and not self.always_challenges else realm
        if self.login is not None and authorization != self._basic():
            return 'Basic realm="fake"'
        return None

    def _basic(self) -> str:
        assert self.login is not None
        return "Basic " + base64.b64encode(":".join(self.login).encode()).decode()

    async def _pushed(self, request: web.Request) -> web.StreamResponse:
        path, _, name = request.path.rpartition("/")
        if request.method == "PUT" and path.endswith("/manifests"):
            data = await request.read()
            here = {*self.blobs, *self.mounted, *self.manifests}
            lacking = [part for part in _named_in(data) if part not in here]
            if lacking:
                error = {"code": "MANIFEST_BLOB_UNKNOWN", "message": f"no blob {lacking[0]}"}
                return web.json_response({"errors": [error]}, status=400)
            known = (request.headers["Content-Type"], data)
            self.manifests[name] = self.manifests[digest(data)] = known
            headers = {"Docker-Content-Digest": digest(data)}
            if self.referrers and (subject := json.loads(data).get("subject")):
                headers["OCI-Subject"] = subject["digest"]
            return web.Response(status=201, headers=headers)
        if request.method == "POST":
            if request.query.get("from") in self.mountable:
                self.mounted.add(request.query["mount"])
                return web.Response(status=201)
            name = f"u{len(self.acts)}"
            self.uploads[name] = bytearray()
            return web.Response(status=202, headers={"Location": f"{path}/{name}?state=1"})
        if name not in self.uploads:
            error = {"code": "BLOB_UPLOAD_UNKNOWN", "message": "blob upload unknown"}
            return web.json_response({"errors": [error]}, status=404)
        if request.method == "PATCH":
            return await self._patched(request, name)
        kept = self.uploads[name]
        where = {"Location": f"{request.path}?state=2", "Range": f"0-{len(kept) - 1}"}
        if request.method == "GET":
            return web.Response(status=204, headers=where)
        data = bytes(self.uploads.pop(name))
        if digest(data) != request.query["digest"]:
            error = {"code": "DIGEST_INVALID", "message": "provided digest did not match uploaded content"}
            return web.json_response({"errors": [error]}, status=400)
        self.blobs[digest(data)] = data
        return web.Response(status=201)

    async def _patched(self, request: web.Request, name: str) -> web.StreamResponse:
        kept = self.uploads[name]
        begin = int(request.headers.get("Content-Range", "0-").partition("-")[0])
        if begin != len(kept):
            return web.Response(status=416)
        limit = self.drop_after[0] if self.drop_after else None  # of the first that is as large
        async for piece in request.content.iter_any():
            kept += piece
            self.received += len(piece)
            if limit is not None and len(kept) - begin >= limit and limit in self.drop_after:
                self.drop_after.remove(limit)
                del kept[begin + limit :]
                if self.forgets:
                    del self.uploads[name]
                assert request.transport is not None
                request.transport.close()
                return web.Response(status=500)
        where = {"Location": f"{request.path}?state=3", "Range": f"0-{len(kept) - 1}"}
        return web.Response(status=202, headers=where)

    async def _token(self, request: web.Request, authorization: str) -> web.Response:
        self.scopes.append(request.query.getall("scope", []))
        if self.identity:
            form = dict(await request.post())
            if form.get("grant_type") != "refresh_token" or form.get("refresh_token") != self.identity:
                return web.Response(status=401)
            return web.json_response({"access_token": self.token, "expires_in": 300})
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


def _named_in(manifest: bytes) -> list[str]:
    document = json.loads(manifest)
    if "manifests" in document:
        return [part["digest"] for part in document["manifests"]]
    return [part["digest"] for part in (document["config"], *document["layers"])]


@contextlib.asynccontextmanager
async def serving(registry: FakeRegistry, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeRegistry]:
    """The registry on a free port of loopback."""
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", registry.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        registry.port = runner.addresses[0][1]
        yield registry
    finally:
        await runner.cleanup()
