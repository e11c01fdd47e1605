"""The command line's own HTTP client: against a real server over TLS, and against peers that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from api.client import Client
from api.http1 import Connection, ProtocolError
from api.listen import serve_tls, server_context
from api.server import controller_app, runner
from controller.pki import Authority
from model.api import CreateInstance
from model.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from model.spec import ContainerSpec
from model.streams import EXIT, STDIN, STDOUT, Unframer, pack
from tests.support.fakeports import FakeFleet

DEADLINE = 10


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[tuple[FakeFleet, str, str]]:
    """(fleet, endpoint, credentials)"""
    authority = Authority.new("fleet")
    pair, admin = authority.controller(["127.0.0.1"]), authority.admin("ada")
    for name, data in (("c.pem", pair.certificate), ("c.key", pair.key), ("ca.pem", authority.pem)):
        (tmp_path / name).write_bytes(data)
    texts = {"ca": authority.pem, "certificate": admin.certificate, "key": admin.key}
    (tmp_path / "admin.json").write_text(json.dumps({k: v.decode() for k, v in texts.items()}))
    certificate, key, ca = (str(tmp_path / n) for n in ("c.pem", "c.key", "ca.pem"))
    async with FakeFleet() as fleet:
        app = runner(controller_app(fleet, fleet_id="fleet"))
        await app.setup()
        port = await serve_tls(app, "127.0.0.1", 0, server_context(certificate=certificate, key=key, ca=ca))
        yield fleet, f"https://127.0.0.1:{port}", str(tmp_path)
        await app.cleanup()


async def test_calls_over_mutual_tls_keep_their_connection(tls: tuple[FakeFleet, str, str]) -> None:
    _, endpoint, credentials = tls

    def calls() -> None:
        client = Client(endpoint, credentials)
        assert client.call("GET", "/v1/info")["fleet_id"] == "fleet"
        first = client._connection
        assert [h["host"]["spec"]["name"] for h in client.call("GET", "/v1/hosts")] == ["n1", "n2", "n3"]
        with pytest.raises(NotFound, match="no such container: nosuch"):
            client.call("GET", "/v1/instances/nosuch")
        lines = list(client.lines("GET", "/v1/events", until=1.0))
        assert len(lines) == 3 and client._connection is first
        client.close()

    await asyncio.to_thread(calls)


def test_call_after_the_server_has_ended_an_idle_connection_makes_another(tmp_path: Path) -> None:
    ended = threading.Event()

    def serve(listening: socket.socket) -> None:
        for _ in range(2):
            with listening.accept()[0] as peer:
                peer.settimeout(DEADLINE)
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            ended.set()  # as after the 75 s for which a server keeps it

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
        listening.settimeout(DEADLINE)
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        client = Client(f"unix://{tmp_path}/sock")
        assert client.call("GET", "/v1/info") == {}
        assert ended.wait(DEADLINE)
        try:
            assert client.call("POST", "/v1/tokens", body={}) == {}
        finally:
            client.close()
            listening.shutdown(socket.SHUT_RDWR)
            server.join(DEADLINE)


async def test_stream_over_tls_carries_more_than_one_record(tls: tuple[FakeFleet, str, str]) -> None:
    fleet, endpoint, credentials = tls
    spec = ContainerSpec(image="box:1", args=("cat",), stdin=True)
    await fleet.create_instance(CreateInstance(spec=spec, name="web", start=True))
    sent = b"x" * 200_000

    def calls() -> bytes:
        sock = Client(endpoint, credentials).hijack("/v1/instances/web/attach", stdin=True)
        sock.settimeout(DEADLINE)
        sock.sendall(pack(STDIN, sent) + pack(STDIN, b""))
        unframer, got = Unframer(), b""
        while True:
            for kind, payload in unframer.feed(sock.recv(65536)):
                got += payload if kind == STDOUT else b""
                if kind == EXIT:
                    sock.close()
                    return got

    assert await asyncio.to_thread(calls) == sent


async def test_server_of_another_ca_and_missing_credentials_are_told(
    tls: tuple[FakeFleet, str, str], tmp_path: Path
) -> None:
    _, endpoint, credentials = tls
    admin = json.loads((tmp_path / "admin.json").read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**admin, "ca": Authority.new("x").pem.decode()}))

    def calls() -> None:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            Client(endpoint, str(other)).call("GET", "/v1/info")
        with pytest.raises(Unauthenticated, match="no credentials"):
            Client(endpoint, str(tmp_path / "nosuch")).call("GET", "/v1/info")
        client = Client(endpoint, credentials)
        with pytest.raises(Forbidden, match="is not for admins"):
            client.call("GET", "/v1/agents/pipe")
        client.close()

    await asyncio.to_thread(calls)


def talk(answer: bytes, use: Callable[[Connection], object], *, asked: bool = False) -> object:
    """`use` a connection whose other side says `answer`, perhaps when it is asked, and ends."""
    near, far = socket.socketpair()
    near.settimeout(DEADLINE)

    def say() -> None:
        with far:
            if asked:
                far.recv(1 << 16)
            far.sendall(answer)

    thread = threading.Thread(target=say)
    thread.start()
    try:
        return use(Connection(near))
    finally:
        thread.join()
        near.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (HEAD + b"Content-Length: 0\r\n\r\n", b""),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: a\r\n\r\n",
            b"hello",
        ),
        (HEAD + b"\r\nto the end", b"to the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\nContent-Length: 2\n\nok", b"ok"),
    ],
)
def test_body_is_read_to_its_end(answer: bytes, body: bytes) -> None:
    assert talk(answer, lambda c: c.reply().read()) == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        HEAD + b"Content-Length: 10\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
        b"HTTP/1.1 200 " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nhalf",
    ],
)
def test_what_is_no_http_is_refused(answer: bytes) -> None:
    def use(connection: Connection) -> None:
        connection.sock.settimeout(DEADLINE)
        connection.reply().read()

    with pytest.raises((ProtocolError, ConnectionError)):
        talk(answer, use)


def test_lines_are_whole_whatever_the_chunks() -> None:
    answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n3\r\nbc\n\r\n1\r\nd\r\n0\r\n\r\n"

    def use(connection: Connection) -> list[bytes]:
        reply = connection.reply()
        return [reply.readline() for _ in range(4)]

    assert talk(answer, use) == [b"a\n", b"bc\n", b"d", b""]


@pytest.mark.parametrize("call", [Client.call, Client.lines, Client.raw])
def test_answer_that_breaks_off_is_an_error_for_people(call: Callable[..., Iterable[object]]) -> None:
    def use(connection: Connection) -> None:
        client = Client("unix:///run/x.sock")
        client._connection = connection
        list(call(client, "GET", "/v1/x"))

    with pytest.raises(Unavailable, match=r"flota at unix:///run/x\.sock broke: the reply broke off"):
        talk(HEAD + b'Transfer-Encoding: chunked\r\n\r\n4\r\n"he"\r\n', use, asked=True)
