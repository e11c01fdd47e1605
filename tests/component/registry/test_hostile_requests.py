"""Requests that are odd rather than many: promises that nobody keeps, content that goes while it is read."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from image.registry.server.limits import Limits
from tests.support.fleetregistry import Client, Served, serving
from tests.support.images import MANIFEST, digest, image, member, tar

DATA = bytes(range(256)) * 4096
BUILT = image([tar(member("a", b"a"))])


@pytest.mark.parametrize("path", ["/v2/app/manifests/1", "upload"])
async def test_body_that_is_announced_and_never_comes_is_408(tmp_path: Path, path: str) -> None:
    """B80: the client waits for `100 Continue`, gets it, and says nothing."""
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, silence=0.3, window=0.5)) as served:
        method = "PUT" if path.startswith("/") else "PATCH"
        where = path if path.startswith("/") else await served.client.begin("app")
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        head = f"{method} {where} HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\n"
        writer.write(f"{head}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n".encode())
        try:
            said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert said.startswith(b"HTTP/1.1 100")
            assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 408")
        finally:
            writer.close()


async def test_blob_that_is_deleted_while_it_is_pulled_arrives_whole(served: Served) -> None:
    """B78."""
    data = DATA * 16
    found = await served.client.push_blob("app", data)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1 << 16)
    try:
        writer.write(f"GET /v2/app/blobs/{found} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert (await served.client.ask("DELETE", f"/v2/app/blobs/{found}")).status == 202
        assert (await served.client.ask("GET", f"/v2/app/blobs/{found}")).status == 404
        await reader.readuntil(b"\r\n\r\n")
        assert digest(await asyncio.wait_for(reader.readexactly(len(data)), 30)) == found
    finally:
        writer.close()


@pytest.mark.parametrize(("mine", "status"), [(True, 206), (False, 200)])
async def test_part_of_another_state_of_a_blob_is_not_sent(client: Client, mine: bool, status: int) -> None:
    """B83: If-Range of what the client has, and of something else."""
    found = await client.push_blob("app", DATA)
    tag = f'"{found}"' if mine else '"sha256:other"'
    reply = await client.ask("GET", f"/v2/app/blobs/{found}", Range="bytes=10-19", If_Range=tag)
    assert (reply.status, reply.body) == (status, DATA[10:20] if mine else DATA)


async def test_upload_that_is_finished_or_cancelled_twice_is_404(client: Client) -> None:
    """B77."""
    where = await client.begin("app")
    assert (await client.ask("PUT", f"{where}?digest={digest(DATA)}", DATA)).status == 201
    assert (await client.ask("PUT", f"{where}?digest={digest(DATA)}", DATA)).status == 404
    other = await client.begin("app")
    assert (await client.ask("DELETE", other)).status == 204
    for method in ("DELETE", "GET", "PATCH", "PUT"):
        query = f"?digest={digest(b'')}" if method == "PUT" else ""
        assert (await client.ask(method, f"{other}{query}", b"")).status == 404


async def test_mount_by_nobody_is_refused_and_makes_nothing(served: Served) -> None:
    """B78: with and without a source, of a blob that anybody may pull."""
    found = await served.client.push_blob("app", DATA)
    nobody = served.client.who("anybody")
    assert (await nobody.ask("GET", f"/v2/app/blobs/{found}")).status == 200
    for query in (f"mount={found}&from=app", f"mount={found}", ""):
        reply = await nobody.ask("POST", f"/v2/other/blobs/uploads/?{query}")
        assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
    assert (await served.client.ask("HEAD", f"/v2/other/blobs/{found}")).status == 404
    assert len(served.registry.uploads) == 0


async def test_a_hundred_thousand_referrers_are_paged_and_quick(served: Served) -> None:
    """B82."""
    await served.client.push("app", BUILT, "1")
    index = served.registry.content.index
    with index.change() as connection:
        ident = index.repository("app")
        connection.executemany(
            "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (ident, f"sha256:{number:064x}", MANIFEST, BUILT.digest, f"text/{number % 2}", b"{}", b"")
                for number in range(100_000)
            ),
        )
    seen, path, began = 0, f"/v2/app/referrers/{BUILT.digest}?artifactType=text/1", time.process_time()
    for _ in range(3):
        reply = await served.client.ask("GET", path)
        seen += len(reply.json["manifests"])
        path = reply.headers["Link"].partition(">")[0][1:]
    assert seen == 3000 and time.process_time() - began < 5.0
    missing = await served.client.ask("GET", f"/v2/app/referrers/{digest(b'absent')}")
    assert (missing.status, missing.json["manifests"]) == (200, [])
