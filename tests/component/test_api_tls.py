"""The API over TLS and on sockets: who gets in, what agents call, and sockets that are taken or stale."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aio.keepalive import QUIET
from api.docker.app import add_docker, fleet_identity
from api.docker.buildkit.control import Info
from api.docker.buildkit.messages import Empty
from api.docker.buildkit.services import CONTROL
from api.docker.state import State
from api.listen import serve_tls, serve_unix, server_context
from api.server import controller_app, host_app, runner
from controller.pki import Authority
from model.errors import AlreadyExists, InvalidInput
from tests.support.buildkitclient import channel, upgrade
from tests.support.fakehost import FakeHost
from tests.support.fakeports import FakeFleet
from tests.support.waiting import until

DEADLINE = 10
HOST_ID = "0" * 63 + "1"


class Tls:
    def __init__(self, fleet: FakeFleet, folder: Path, port: int) -> None:
        self.fleet = fleet
        self.folder = folder
        self.port = port
        self.url = f"https://127.0.0.1:{port}"

    def context(self, who: str, authority: Authority, ca: Authority | None = None) -> ssl.SSLContext:
        """A client of identity `who`: admin, host, controller or anonymous."""
        context = ssl.create_default_context(cadata=(ca or authority).pem.decode())
        if who == "anonymous":
            return context
        if who == "host":
            key, csr = make_request()
            pair = (authority.host(csr, HOST_ID).certificate, key)
        else:
            made = authority.admin("ada") if who == "admin" else authority.controller(["127.0.0.1"])
            pair = (made.certificate, made.key)
        path = self.folder / f"{who}.pem"
        path.write_bytes(pair[0] + pair[1])
        context.load_cert_chain(path)
        return context


def make_request() -> tuple[bytes, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return pem, csr.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def authority() -> Authority:
    return Authority.new("fleet")


@pytest.fixture
async def tls(tmp_path: Path, authority: Authority) -> AsyncIterator[Tls]:
    pair = authority.controller(["127.0.0.1"])
    for name, data in (("c.pem", pair.certificate), ("c.key", pair.key), ("ca.pem", authority.pem)):
        (tmp_path / name).write_bytes(data)
    certificate, key, ca = (str(tmp_path / n) for n in ("c.pem", "c.key", "ca.pem"))
    async with FakeFleet() as fleet:
        native, state = controller_app(fleet, fleet_id="fleet", ca=authority.pem.decode()), State()
        add_docker(native, fleet, fleet_identity("fleet"), state)
        app = runner(native)
        await app.setup()
        port = await serve_tls(app, "127.0.0.1", 0, server_context(certificate=certificate, key=key, ca=ca))
        yield Tls(fleet, tmp_path, port)
        await state.close()
        await app.cleanup()


async def get(tls: Tls, context: ssl.SSLContext, path: str, method: str = "GET") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, tls.url + path, ssl=context) as reply,
    ):
        return reply.status, await reply.text()


async def test_each_certificate_opens_its_own_doors(tls: Tls, authority: Authority) -> None:
    found = {
        who: [
            (await get(tls, tls.context(who, authority), path))[0]
            for path in ("/v1/ca", "/v1/info", "/v1/openapi.json", "/v1/agents/pipe")
        ]
        for who in ("admin", "host", "anonymous")
    }
    assert found == {
        "admin": [200, 200, 200, 403],
        "host": [200, 403, 403, 400],
        "anonymous": [200, 401, 401, 401],
    }


async def test_dockers_api_beside_the_native_one_is_for_admins_alone(tls: Tls, authority: Authority) -> None:
    found = {}
    for who in ("admin", "host", "anonymous"):
        context = tls.context(who, authority)
        paths = ("/_ping", "/v1.41/containers/json", "/nothing")
        found[who] = [(await get(tls, context, path))[0] for path in paths]
    assert found == {"admin": [200, 200, 404], "host": [403, 403, 404], "anonymous": [401, 401, 404]}
    other = tls.context("admin", Authority.new("other"), authority)
    with pytest.raises(aiohttp.ClientError):
        await get(tls, other, "/_ping")
    status, said = await get(tls, tls.context("admin", authority), "/v1/nothing")
    assert status == 404 and "See GET /v1/openapi.json" in said, "native paths stay the native API's"


async def test_buildkits_connections_are_for_admins_alone(tls: Tls, authority: Authority) -> None:
    for who, told in (("host", "403"), ("anonymous", "401"), ("admin", "")):
        reader, writer = await asyncio.open_connection("127.0.0.1", tls.port, ssl=tls.context(who, authority))
        with contextlib.closing(writer):
            if told:
                with pytest.raises(AssertionError, match=told):
                    await upgrade(reader, writer, "/grpc")
                assert await asyncio.wait_for(reader.read(), DEADLINE) == b"", "what follows is no request"
                continue
            await upgrade(reader, writer, "/grpc")
            async with channel(reader, writer) as calls:
                info = await calls.ask(f"{CONTROL}Info", Empty(), Info, within=DEADLINE)
                assert info.version is not None and info.version.package == "flota"


async def test_the_ca_is_given_to_anybody(tls: Tls, authority: Authority) -> None:
    assert await get(tls, tls.context("anonymous", authority), "/v1/ca") == (200, authority.pem.decode())


async def test_certificate_of_another_ca_is_not_let_in(tls: Tls, authority: Authority) -> None:
    stranger = Authority.new("fleet")
    context = tls.context("admin", stranger, ca=authority)
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        await get(tls, context, "/v1/info")


async def test_certificate_for_servers_opens_nothing(tls: Tls, authority: Authority) -> None:
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        await get(tls, tls.context("controller", authority), "/v1/ca")


async def test_certificate_of_another_fleet_under_the_same_ca_is_refused(
    tls: Tls, authority: Authority
) -> None:
    authority._fleet = "other"
    context = tls.context("admin", authority)
    assert (await get(tls, context, "/v1/info"))[0] == 403


async def test_tls_below_1_2_and_plain_http_are_refused(tls: Tls, authority: Authority) -> None:
    context = tls.context("admin", authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await get(tls, context, "/v1/info")
    reader, writer = await asyncio.open_connection("127.0.0.1", tls.port)
    writer.write(b"GET /v1/info HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(DEADLINE):
        assert b"HTTP" not in await reader.read()
    writer.close()


async def test_connection_that_sends_no_request_is_closed(tmp_path: Path, authority: Authority) -> None:
    pair = authority.controller(["127.0.0.1"])
    for name, data in (("c.pem", pair.certificate), ("c.key", pair.key), ("ca.pem", authority.pem)):
        (tmp_path / name).write_bytes(data)
    certificate, key, ca = (str(tmp_path / n) for n in ("c.pem", "c.key", "ca.pem"))
    context = server_context(certificate=certificate, key=key, ca=ca)
    async with served() as app, asyncio.timeout(DEADLINE):
        port = await serve_tls(app, "127.0.0.1", 0, context, patience=2.0)
        plain, plain_writer = await asyncio.open_connection("127.0.0.1", port)
        client = ssl.create_default_context(cadata=authority.pem.decode())
        slow, slow_writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        slow_writer.write(b"GET /v1/info HTTP/1.1\r\nHost: ")
        fast, fast_writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        fast_writer.write(b"GET /v1/info HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await plain.read() == b"" and await slow.read() == b""
        assert b"200 OK" in await fast.readuntil(b"\r\n\r\n")
        fast_writer.write(b"GET /v1/info HTTP/1.1\r\nHost: a\r\n\r\n")
        await fast.readuntil(b"200 OK")
        for writer in (plain_writer, slow_writer, fast_writer):
            writer.close()


async def test_agent_speaks_over_a_websocket(tls: Tls, authority: Authority) -> None:
    context = tls.context("host", authority)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{tls.url}/v1/agents/session", ssl=context) as socket,
    ):
        await socket.send_bytes(b"hello")
        assert await socket.receive_bytes(timeout=DEADLINE) == b"re:hello"
    assert tls.fleet.sessions == [(HOST_ID, b"hello")]


async def test_offered_connection_is_raw_both_ways_until_one_side_ends_it(
    tls: Tls, authority: Authority
) -> None:
    context = tls.context("host", authority)
    reader, writer = await asyncio.open_connection("127.0.0.1", tls.port, ssl=context)
    writer.write(
        b"GET /v1/agents/pipe HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: flota-pipe\r\n\r\n"
    )
    async with asyncio.timeout(DEADLINE):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        await until(lambda: tls.fleet.offered, deadline=DEADLINE)
        pipe = next(iter(tls.fleet.offered.values()))
        kept = pipe.writer.get_extra_info("socket")
        assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == QUIET
        pipe.writer.write(b"GET /v1/info HTTP/1.1\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"GET /v1/info HTTP/1.1\r\n\r\n"
        writer.write(b"x" * 1_000_000)
        assert len(await pipe.reader.readexactly(1_000_000)) == 1_000_000
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
        assert await pipe.reader.read() == b""
        await pipe.writer.wait_closed()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[web.AppRunner]:
    from aio.supervisor import Supervisor
    from model.ids import HostId

    async with Supervisor("test") as tasks:
        made = runner(host_app(FakeHost(HostId(HOST_ID), "n1", tasks)))
        await made.setup()
        yield made
        await made.cleanup()


async def hostname(path: str) -> str:
    """What the host that listens on a socket says it is called."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
        session.get("http://flota/v1/info") as reply,
    ):
        found: str = (await reply.json())["hostname"]
        return found


async def test_unix_socket_is_for_owner_and_group_and_answers(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    path = str(folder / "api.sock")
    async with served() as app:
        await serve_unix(app, path)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        link = str(tmp_path / "s")
        os.symlink(path, link)
        assert await hostname(link) == "n1"


async def test_socket_in_use_is_not_taken_and_a_stale_one_is(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with served() as first, served() as second:
        await serve_unix(first, path)
        with pytest.raises(AlreadyExists, match=r"listens on .* already"):
            await serve_unix(second, path)
    stale = socket.socket(socket.AF_UNIX)
    other = str(tmp_path / "stale")
    stale.bind(other)
    stale.close()
    async with served() as app:
        await serve_unix(app, other)


async def test_file_at_the_sockets_path_and_unknown_group_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    async with served() as app:
        with pytest.raises(InvalidInput, match="is no socket"):
            await serve_unix(app, str(file))
        assert file.read_text() == "precious"
        with pytest.raises(InvalidInput, match="no such group: nosuch"):
            await serve_unix(app, str(tmp_path / "s"), group="nosuch")


async def test_port_in_use_is_told(tls: Tls) -> None:
    async with served() as app:
        with pytest.raises(AlreadyExists, match=f"port {tls.port}"):
            await serve_tls(app, "127.0.0.1", tls.port, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/info HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v1/info HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
        b"GET /v1/info HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET /v1/info HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20000 + b"\r\n\r\n",
        b"GET /v1/info" + b"a" * 40000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01",
    ],
)
async def test_malformed_http_is_refused_without_harm(tmp_path: Path, data: bytes) -> None:
    path = str(tmp_path / "s")
    async with served() as app:
        await serve_unix(app, path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(DEADLINE):
            answer = await reader.read()
        writer.close()
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
        assert await hostname(path) == "n1"
