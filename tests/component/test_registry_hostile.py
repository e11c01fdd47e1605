"""Registries that lie, stall, or lead astray; mirrors that fail; certificates of one's own."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from image.reference import parse
from image.registry.client import RegistryClient
from image.registry.transport import redirected
from model.errors import Damaged, FlotaError, Unauthenticated, Unavailable
from model.registries import Login
from model.status import Platform
from tests.support.images import image, member, tar
from tests.support.registry import FakeRegistry, serving

AMD64 = Platform(os="linux", arch="amd64")
ADA = Login(user="ada", password="secret")
LAYER = tar(member("bin/tool", bytes(range(256)) * 4096))
BUILT = image([LAYER])
BLOB = next(digest for digest in BUILT.blobs if digest != BUILT.id)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    fake = FakeRegistry()
    fake.push(BUILT, "1")
    async with serving(fake) as served:
        yield served


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    client = RegistryClient(window=0.3)
    yield client
    await client.close()


async def pull(client: RegistryClient, host: str, path: Path, login: Login = ADA) -> bytes:
    remote = await client.resolve(parse(f"{host}/app:1"), AMD64, login)
    await client.download(remote, remote.layers[0], path, lambda _: None)
    return gzip.decompress(path.read_bytes())


@asynccontextmanager
async def bent(registry: FakeRegistry, blob: Callable[[web.Request], object]) -> AsyncIterator[str]:
    """A registry that gives blobs as `blob` says: a coroutine that answers."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path.endswith(BLOB):
            answer = blob(request)
            assert asyncio.iscoroutine(answer)
            reply = await answer
            assert isinstance(reply, web.StreamResponse)
            return reply
        return await registry.handle(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# -- blobs ------------------------------------------------------------------------------------------
async def test_blob_without_end_is_cut_at_its_announced_size(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with bent(registry, endless) as host:
        with pytest.raises(Damaged, match="longer than the"):
            await pull(client, host, tmp_path / "blob")
    assert (tmp_path / "blob").stat().st_size <= len(BUILT.blobs[BLOB])


async def test_blob_that_drips_is_given_up(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    asked = 0

    async def dripping(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.02)

    async with bent(registry, dripping) as host, asyncio.timeout(30):
        with pytest.raises(Unavailable, match="silent, or too slow"):
            await pull(client, host, tmp_path / "blob")
    assert asked == 5


async def test_blob_that_ends_early_each_time_is_given_up(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    async def short(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x", status=206, headers={"Content-Range": "bytes 0-0/1"})

    async with bent(registry, short) as host:
        with pytest.raises(FlotaError):
            await pull(client, host, tmp_path / "blob")


async def test_range_that_was_not_asked_for_is_refused(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        data = BUILT.blobs[BLOB]
        if "Range" in request.headers:
            return web.Response(body=data[:100], status=206, headers={"Content-Range": "bytes 0-99/100"})
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:50])
        assert request.transport is not None
        request.transport.close()
        return response

    async with bent(registry, elsewhere) as host:
        with pytest.raises(Damaged, match="another range"):
            await pull(client, host, tmp_path / "blob")


async def test_manifest_that_lies_about_a_size_is_found_out(
    client: RegistryClient, registry: FakeRegistry, tmp_path: Path
) -> None:
    for size, words in ((10, "longer than the"), (1 << 30, "ended after")):
        document = json.loads(BUILT.manifest)
        document["layers"][0]["size"] = size
        registry.manifests["1"] = (registry.manifests["1"][0], json.dumps(document).encode())
        with pytest.raises((Damaged, Unavailable), match=words):
            await pull(client, registry.host, tmp_path / "blob")


# -- who and where ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("start", "target", "words"),
    [
        ("https://a.example/v2/", "http://a.example/x", "from HTTPS to plain HTTP"),
        ("https://a.example/v2/", "https://127.0.0.1/x", "this host's own"),
        ("https://a.example/v2/", "https://[::1]:8080/x", "this host's own"),
        ("https://a.example/v2/", "file:///etc/passwd", "redirects to"),
        ("https://a.example/v2/", "", "redirects to"),
    ],
)
def test_redirect_that_leads_astray_is_not_followed(start: str, target: str, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        redirected(URL(start), target)


def test_redirect_keeps_the_very_bytes_of_its_target() -> None:
    signed = "https://store.example/blob?sig=a%2Fb%3D&x=%20"
    assert str(redirected(URL("https://a.example/v2/"), signed)) == signed


@pytest.mark.parametrize(
    "realm", ["http://tokens.example/token", "ftp://x/", "https://u:p@tokens.example/", "", "//", "nonsense"]
)
async def test_token_service_that_is_not_safe_is_not_asked(
    client: RegistryClient, registry: FakeRegistry, realm: str
) -> None:
    async def challenge(request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})

    async with bent(registry, challenge) as host:
        remote = await client.resolve(parse(f"{host}/app:1"), AMD64, ADA)
        with pytest.raises(Unavailable, match="unusable token service"):
            await client.download(remote, remote.layers[0], Path("/dev/null"), lambda _: None)


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "", "\x00", "tökén"])
async def test_token_that_is_none_is_refused(
    client: RegistryClient, registry: FakeRegistry, token: str
) -> None:
    registry.token = token
    registry.always_challenges = True
    with pytest.raises(Unavailable, match="gave no token"):
        await client.resolve(parse(f"{registry.host}/app:1"), AMD64, ADA)


async def test_registry_that_refuses_every_token_is_left(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    registry.token, registry.always_challenges = "t0k3n", True
    with pytest.raises(Unauthenticated):
        await client.resolve(parse(f"{registry.host}/app:1"), AMD64, ADA)
    assert len(registry.asked("/token")) == 1


async def test_login_goes_to_nobody_but_its_registry(client: RegistryClient, registry: FakeRegistry) -> None:
    async with serving(FakeRegistry(login=("eve", "x"))) as evil:
        with pytest.raises(Unauthenticated):
            await client.resolve(parse(f"{evil.host}/app:1"), AMD64)
        assert {who for _, who, _ in evil.requests} == {""}


# -- patience ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("dated", [False, True])
async def test_retry_after_is_waited_for_in_both_forms(
    client: RegistryClient, registry: FakeRegistry, dated: bool
) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
    registry.statuses, registry.retry_after = [429], email.utils.format_datetime(soon) if dated else "1"
    began = time.monotonic()
    await client.resolve(parse(f"{registry.host}/app:1"), AMD64)
    assert time.monotonic() - began > 0.9


async def test_retry_after_an_hour_is_told_and_not_waited_for(
    client: RegistryClient, registry: FakeRegistry
) -> None:
    registry.statuses, registry.retry_after = [429], "3600"
    with pytest.raises(Unavailable, match="wants no request for 3600 s"):
        await client.resolve(parse(f"{registry.host}/app:1"), AMD64)
    assert len(registry.acts) == 1
