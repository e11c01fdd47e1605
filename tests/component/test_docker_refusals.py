"""Docker's API at roles, malformed requests and silent hosts: refused in words, and others go on."""

# ruff: noqa: E501 - tables

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.docker.app import MAX_BODY
from api.ports import Identity
from model.status import Phase
from tests.support.dockerclient import DEADLINE, Docker, frames, served
from tests.support.waiting import until


async def test_silent_host_is_told_and_hinders_nothing_else(docker: Docker) -> None:
    ident = await docker.run("sleep", "9", Labels={"flota.node": "n2"})
    _, host = docker.fleet.locate_instance(ident)
    docker.fleet.silent.add(host)
    status, said = await docker.call("GET", f"/containers/{ident}/logs?stdout=1")
    assert status == 503 and "does not answer" in said["message"]
    host_, container = docker.fleet._find(ident)
    await container.become(image_id="sha256:unknown", health="healthy")
    before = len(docker.fleet.pipes)
    assert len(await docker.ok("GET", "/containers/json")) == 1
    assert (await docker.ok("GET", f"/containers/{ident}/json"))["State"]["Health"]["Status"] == "healthy"
    assert len(docker.fleet.pipes) == before and host_.id == host, "one that is away is not asked"


async def test_host_that_is_given_up_ends_a_stream_with_words(docker: Docker) -> None:
    ident = await docker.run("cat", OpenStdin=True)
    path = f"/containers/{ident}/attach?stream=1&stdin=1&stdout=1"
    async with docker.hijack(path) as (_, reader, writer):
        writer.write(b"x")
        async with asyncio.timeout(DEADLINE):
            assert frames(await reader.readexactly(9)) == [(1, b"x")]
            docker.fleet.give_up("host n1 is lost")
            assert frames(await reader.read()) == [(3, b"host n1 is lost\r\n")]


async def test_restart_policy_and_pause_reach_the_container(docker: Docker) -> None:
    await docker.run("sleep", "9", name="web")
    assert await docker.call("POST", "/containers/web/pause") == (204, b"")
    assert (await docker.ok("GET", "/containers/web/json"))["State"]["Status"] == "paused"
    exec_ = await docker.call("POST", "/containers/web/exec", {"Cmd": ["true"]})
    assert exec_[0] == 409 and "is paused" in exec_[1]["message"]
    assert await docker.call("POST", "/containers/web/unpause") == (204, b"")
    assert await docker.call("POST", "/containers/web/kill?signal=INT") == (204, b"")
    assert await docker.call("POST", "/containers/web/kill?signal=-1") == (
        400,
        {"message": "Invalid signal: -1"},
    )
    container = docker.fleet._find("web")[1]
    await until(lambda: container.status.phase is Phase.EXITED, deadline=DEADLINE)
    status, said = await docker.call("POST", "/containers/web/kill")
    assert status == 409 and "is not running" in said["message"]


@pytest.mark.parametrize("role", ["host", "anonymous"])
async def test_nobody_but_admins_gets_through(tmp_path: Path, role: Any) -> None:
    async with served(tmp_path, Identity(role=role, id="a" * 64)) as docker:
        for path in ("/info", "/containers/json", "/_ping"):
            status, said = await docker.call("GET", path)
            assert status == (403 if role == "host" else 401) and said["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "words"),
    [
        ("POST", "/containers/create", b"{", {}, 400, "not valid JSON"),
        ("POST", "/containers/create", b"", {}, 400, "body is missing"),
        ("POST", "/containers/create", b"[1]", {}, 400, "no JSON object"),
        ("POST", "/containers/create", b'{"Image":"box:1"}', {"Content-Type": "text/plain"}, 400, "Content-Type"),
        ("POST", "/containers/create", b'{"Image":"\xff"}', {}, 400, "not valid JSON"),
        ("POST", "/containers/create", b'{"Image":"\\ud800"}', {}, 400, "not valid JSON"),
        ("POST", "/containers/create", b"[" * 100_000, {}, 400, "JSON"),
        ("POST", "/containers/create", gzip.compress(b"{}"), {"Content-Encoding": "gzip"}, 400, "encoded"),
        ("POST", "/containers/create", b" " * (MAX_BODY + 1), {}, 413, "larger than"),
        ("POST", "/containers/create?name=../x", b'{"Image":"box:1"}', {}, 400, "Invalid container name"),
        ("POST", "/containers/create", b'{"Image":"../../etc"}', {}, 404, "No such image"),
        ("POST", "/containers/create", b'{"Image":"box:1","Image":"gone"}', {}, 404, "No such image: gone"),
        ("GET", "/containers/json?limit=abc", b"", {}, 400, "limit"),
        ("GET", "/containers/json?limit=-7", b"", {}, 400, "out of range"),
        ("GET", "/containers/json?filters=junk", b"", {}, 400, "invalid filter"),
        ("GET", "/containers/x/logs?stdout=1&since=abc", b"", {}, 400, "since"),
        ("GET", "/containers/..%2F..%2Finfo/json", b"", {}, 404, "page not found"),
        ("GET", "/containers/%252e%252e/json", b"", {}, 404, "No such container"),
        ("GET", "/containers/a;b/json", b"", {}, 404, "No such container"),
        ("GET", "/info/", b"", {}, 404, "page not found"),
        ("GET", "/v999/info", b"", {}, 404, "page not found"),
        ("GET", "/v0.1/info", b"", {}, 400, "too old"),
        ("GET", "/v1.52/info", b"", {}, 400, "too new"),
        ("PATCH", "/info", b"", {}, 404, "page not found"),
        ("POST", "/info", b"", {"X-HTTP-Method-Override": "GET"}, 404, "page not found"),
        ("POST", "/containers/x/attach?stream=1", b"", {}, 404, "No such container"),
        ("POST", "/exec/x/start", b"{}", {}, 404, "No such exec instance"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_refused_in_one_line(
    docker: Docker, method: str, path: str, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    fields = {"Content-Type": "application/json", **headers} if body else headers
    got, said = await docker.call(method, path, data=io.BytesIO(body) if body else None, headers=fields)
    assert got == status and words in said["message"] and "\n" not in said["message"]
    assert not docker.fleet.created


async def test_body_in_many_chunks_is_bounded_too(docker: Docker) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 65536 + 2):
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    status, said = await docker.call("POST", "/containers/create", data=chunks(), headers=headers)
    assert status == 413 and "larger than" in said["message"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (
            b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            400,
        ),
        (b"GET /info HTTP/1.1\r\nHost: d\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /info HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"GET /info HTTP/1.1\r\nHost: d\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 400),
        (b"GET http://other/_ping HTTP/1.1\r\nHost: d\r\n\r\n", 200),
        (b"junk\r\n\r\n", 400),
        (
            b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: -1\r\n\r\n",
            400,
        ),
        (
            b"POST /exec/x/start HTTP/1.1\r\nHost: d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
            404,
        ),
    ],
)
async def test_malformed_request_is_refused_and_others_go_on(
    docker: Docker, request_: bytes, status: int
) -> None:
    reader, writer = await asyncio.open_unix_connection(docker.socket)
    writer.write(request_)
    async with asyncio.timeout(DEADLINE):
        assert (await reader.readline()).split()[1] == str(status).encode()
    writer.close()
    assert await docker.ok("GET", "/_ping") == b"OK"


async def test_many_tiny_chunks_and_a_reader_that_never_reads_hold_up_nobody(docker: Docker) -> None:
    reader, writer = await asyncio.open_unix_connection(docker.socket)
    head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    for byte in b'{"Image":"gone"}':
        writer.write(b"1\r\n%c\r\n" % byte)
    writer.write(b"0\r\n\r\n")
    async with asyncio.timeout(DEADLINE):
        assert b"404" in await reader.readline()
    writer.close()
    ident = await docker.create("spam", str(64 << 20))
    path = f"/containers/{ident}/attach?stream=1&stdout=1"
    async with docker.hijack(path):
        await docker.ok("POST", f"/containers/{ident}/start")
        container = docker.fleet._find(ident)[1]
        await until(lambda: container.status.phase is Phase.EXITED, deadline=DEADLINE)
        [session] = container.sessions
        assert session._next < 1000, "what nobody reads is not taken from the container"
        assert await docker.ok("GET", "/_ping") == b"OK"
    await until(lambda: session.closed, deadline=DEADLINE)
