"""Clients that mean harm, or are broken: each is refused within bounds, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aio.clock import VirtualClock
from image.registry.server.limits import Limits
from tests.support.fleetregistry import Served, serving
from tests.support.images import MANIFEST, chunks, digest, image, member, tar
from tests.support.waiting import until

BUILT = image([tar(member("a", b"a"))])
DATA = b"d" * 50_000


async def endless(size: int = 100_000) -> AsyncIterator[bytes]:
    while True:
        yield b"z" * size


@contextlib.asynccontextmanager
async def raw(served: Served, head: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        writer.write(head.replace("\n", "\r\n").encode())
        await writer.drain()
        yield reader, writer
    finally:
        writer.close()


async def test_endless_blob_is_413_and_its_bytes_go(tmp_path: Path) -> None:
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, blob=3 << 20)) as served:
        where = await served.client.begin("app")
        reply = await served.client.ask("PATCH", where, endless())
        assert (reply.status, reply.code) == (413, "SIZE_INVALID")
        assert (await served.client.ask("GET", where)).status == 404
        assert served.registry.content.files.uploads() == []


async def test_chunk_longer_than_announced_is_refused(served: Served) -> None:
    where = await served.client.begin("app")
    reply = await served.client.ask("PATCH", where, endless(), Content_Range="0-9999")
    assert (reply.status, reply.code) == (400, "SIZE_INVALID")


async def test_endless_manifest_is_413(served: Served) -> None:
    reply = await served.client.ask("PUT", "/v2/app/manifests/1", endless(), Content_Type=MANIFEST)
    assert reply.status == 413


async def test_sender_that_falls_silent_is_408_and_can_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, silence=0.3)) as served:
        where = await served.client.begin("app")
        head = f"PATCH {where} HTTP/1.1\nHost: x\nContent-Length: {len(DATA)}\n\n"
        async with raw(served, head) as (reader, writer):
            writer.write(DATA[:1000])
            said = await asyncio.wait_for(reader.read(4096), 10)
        assert said.startswith(b"HTTP/1.1 408")
        assert (await served.client.ask("GET", where)).headers["Range"] == "0-999"
        reply = await served.client.ask("PUT", f"{where}?digest={digest(DATA)}", DATA[1000:])
        assert reply.status == 201


async def test_sender_that_drips_is_408(tmp_path: Path) -> None:
    limits = Limits(reserve=0, silence=5.0, window=0.5, slowest=10_000)
    async with serving(tmp_path / "registry", limits=limits) as served:
        where = await served.client.begin("app")
        head = f"PATCH {where} HTTP/1.1\nHost: x\nContent-Length: {len(DATA)}\n\n"
        async with raw(served, head) as (reader, writer):
            answer = asyncio.create_task(reader.read(4096))
            while not answer.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
            assert (await answer).startswith(b"HTTP/1.1 408")


async def test_reader_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, window=0.3)) as served:
        found = await served.client.push_blob("app", os.urandom(1 << 20) * 24)
        async with raw(served, f"GET /v2/app/blobs/{found} HTTP/1.1\nHost: x\n\n") as (reader, _):
            began = time.monotonic()
            await asyncio.sleep(1.5)
            with contextlib.suppress(ConnectionError):
                assert len(await reader.read(-1)) < 24 << 20
            assert time.monotonic() - began < 20


async def test_connection_that_breaks_leaves_an_upload_that_can_go_on(served: Served) -> None:
    where = await served.client.begin("app")
    head = f"PATCH {where} HTTP/1.1\nHost: x\nContent-Length: {len(DATA)}\n\n"
    async with raw(served, head) as (_, writer):
        writer.write(DATA[:20_000])
        await writer.drain()

    async def settled() -> bool:
        reply = await served.client.ask("GET", where)
        return reply.headers["Range"] == "0-19999"

    await until(settled, deadline=10)
    reply = await served.client.ask("PATCH", where, DATA[20_000:], Content_Range="20000-49999")
    assert reply.status == 202
    assert (await served.client.ask("PUT", f"{where}?digest={digest(DATA)}")).status == 201


async def test_clients_that_begin_and_go_leave_nothing_uncounted(served: Served) -> None:
    for pause in (0.0, 0.0005, 0.001, 0.002, 0.004) * 8:
        async with raw(served, "POST /v2/app/blobs/uploads/ HTTP/1.1\nHost: x\nContent-Length: 0\n\n"):
            await asyncio.sleep(pause)
    await served.client.push_blob("app", DATA)

    def settled() -> bool:
        begun = {upload.id for upload in served.registry.content.index.begun()}
        return all(ident in served.registry.uploads for ident in begun)

    await until(settled, deadline=10)


async def test_blob_whose_client_goes_at_the_last_moment_is_whole_or_still_to_be_sent(served: Served) -> None:
    """Its upload is over once it is a blob, whether or not anybody heard of it."""
    uploads, content = served.registry.uploads, served.registry.content
    for turns in range(40):
        data = DATA + b"%d" % turns
        session = await uploads.begin("app", "writer")
        await uploads.receive(session, chunks(data))
        finishing = asyncio.create_task(uploads.finish(session, digest(data)))
        for _ in range(turns % 8):
            await asyncio.sleep(0)
        finishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await finishing
        known, made = session.begun.id in uploads, content.find("app", digest(data)) is not None
        assert known != made
        assert content.files.upload(session.begun.id).exists() == known


async def test_upload_whose_file_is_gone_never_becomes_a_blob(served: Served) -> None:
    where = await served.client.begin("app")
    await served.client.ask("PATCH", where, DATA)
    served.registry.content.files.upload(where.rpartition("/")[2]).unlink()
    reply = await served.client.ask("PUT", f"{where}?digest={digest(DATA)}")
    assert reply.status == 500 and b"gone" in reply.body
    assert (await served.client.ask("HEAD", f"/v2/app/blobs/{digest(DATA)}")).status == 404
    assert served.registry.content.files.uploads() == []


async def test_two_writers_of_one_upload_do_not_mix(served: Served) -> None:
    where = await served.client.begin("app")
    head = f"PATCH {where} HTTP/1.1\nHost: x\nContent-Length: {len(DATA)}\n\n"
    async with raw(served, head) as (reader, writer):
        session = served.registry.uploads.get("app", where.rpartition("/")[2])
        await until(lambda: session.busy, deadline=10)
        for method, path in (("PATCH", where), ("PUT", f"{where}?digest={digest(b'')}"), ("DELETE", where)):
            reply = await served.client.ask(method, path, b"other" if method == "PATCH" else None)
            assert (reply.status, reply.code) == (409, "BLOB_UPLOAD_INVALID")
        writer.write(DATA)
        assert (await reader.readline()).startswith(b"HTTP/1.1 202")
    assert (await served.client.ask("PUT", f"{where}?digest={digest(DATA)}")).status == 201


async def test_one_caller_leaves_room_for_others(tmp_path: Path) -> None:
    limits = Limits(reserve=0, uploads_each=5, bodies_each=1)
    async with serving(tmp_path / "registry", limits=limits) as served:
        writer = served.client.who("writer")
        where = await writer.begin("app")
        head = f"PATCH {where} HTTP/1.1\nHost: x\nContent-Length: 10\nAuthorization: Basic d3JpdGVyOng=\n\n"
        async with raw(served, head):
            session = served.registry.uploads.get("app", where.rpartition("/")[2])
            await until(lambda: session.busy, deadline=10)
            for _ in range(4):
                other = await writer.begin("app")
            assert (await writer.ask("PATCH", other, b"x")).status == 429
            assert (await writer.ask("POST", "/v2/app/blobs/uploads/")).status == 429
            await served.client.push_blob("app", DATA)
        await until(lambda: not session.busy, deadline=10)
        assert (await writer.ask("PATCH", other, b"x")).status == 202


async def test_upload_that_is_sent_for_ever_ends_at_its_age(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, age=100.0), clock=clock) as served:
        where = await served.client.begin("app")

        async def body() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b"x" * 100_000
                await clock.advance(10)

        reply = await served.client.ask("PATCH", where, body())
        assert reply.status == 408 and served.registry.content.files.uploads() == []


async def test_more_uploads_than_there_may_be_are_429(tmp_path: Path) -> None:
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, uploads=20)) as served:
        places = [await served.client.begin("app") for _ in range(20)]
        reply = await served.client.ask("POST", "/v2/app/blobs/uploads/")
        assert (reply.status, reply.code) == (429, "TOOMANYREQUESTS") and reply.headers["Retry-After"]
        await served.client.ask("DELETE", places[0])
        await served.client.push_blob("app", DATA)


async def test_more_senders_than_there_may_be_are_429(tmp_path: Path) -> None:
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, bodies=2)) as served:
        places = [await served.client.begin("app") for _ in range(3)]
        async with contextlib.AsyncExitStack() as stack:
            for where in places[:2]:
                head = f"PATCH {where} HTTP/1.1\nHost: x\nContent-Length: 10\n\n"
                await stack.enter_async_context(raw(served, head))
                session = served.registry.uploads.get("app", where.rpartition("/")[2])
                await until(lambda one=session: one.busy, deadline=10)
            reply = await served.client.ask("PATCH", places[2], b"x")
            assert (reply.status, reply.code) == (429, "TOOMANYREQUESTS")
        await until(lambda: not session.busy, deadline=10)


async def test_manifests_that_come_count_as_senders_too(tmp_path: Path) -> None:
    async with serving(tmp_path / "registry", limits=Limits(reserve=0, bodies=2)) as served:
        where = await served.client.begin("app")
        head = f"PUT /v2/app/manifests/1 HTTP/1.1\nHost: x\nContent-Type: {MANIFEST}\nContent-Length: 10\n\n"

        async def refused() -> bool:
            return (await served.client.ask("PATCH", where, b"x")).status == 429

        async with raw(served, head), raw(served, head):
            await until(refused, deadline=10)
            reply = await served.client.push_manifest("app", "2", BUILT.manifest)
            assert (reply.status, reply.code) == (429, "TOOMANYREQUESTS") and reply.headers["Retry-After"]
        await until(lambda: served.registry.uploads.senders == 0, deadline=10)
        await served.client.push("app", BUILT, "1")


async def test_large_manifests_beyond_a_few_wait_and_small_ones_pass_them(tmp_path: Path) -> None:
    limits = Limits(reserve=0, large=1, window=2.0)
    size = 2 * limits.small
    head = f"PUT /v2/app/manifests/1 HTTP/1.1\nHost: x\nContent-Type: {MANIFEST}\nContent-Length: {size}\n\n"
    async with serving(tmp_path / "registry", limits=limits) as served:
        async with raw(served, head) as (_, first):
            first.write(b" " * (size - 1))
            await until(served.registry.large.locked, deadline=10)
            async with raw(served, head) as (reader, second):
                second.write(b" " * (size - 1))
                await served.client.push("app", BUILT, "small")
                said = await asyncio.wait_for(reader.readline(), 30)
                assert said.startswith((b"HTTP/1.1 429", b"HTTP/1.1 408"))
        await until(lambda: not served.registry.large.locked(), deadline=10)


_CROWD = """
import asyncio, json, sys, tempfile
from pathlib import Path
from tests.support.fleetregistry import serving
from tests.support.images import MANIFEST

data = b'{"schemaVersion":2,"x":[' + b",".join([b"{}"] * 1_390_000) + b"]}"

async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as served:
            pushes = (served.client.push_manifest("app", f"t{n}", data, MANIFEST) for n in range(12))
            async with asyncio.TaskGroup() as group:
                made = [group.create_task(one) for one in pushes]
            print({task.result().status for task in made})
    print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])

asyncio.run(main())
"""


def test_crowd_of_the_largest_manifests_takes_bounded_memory() -> None:
    """They are read one by one, and nothing is left of those that were refused."""
    words = [sys.executable, "-c", _CROWD]
    done = subprocess.run(words, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    statuses, peak = done.stdout.splitlines()
    assert statuses == "{400}" and int(peak) < 512 << 10


async def test_list_of_very_many_tags_is_paged_and_quick(served: Served) -> None:
    await served.client.push("app", BUILT, "1")
    index = served.registry.content.index
    with index.change() as connection:
        ident = index.repository("app")
        rows = [(ident, f"t{number:06}", BUILT.digest) for number in range(50_000)]
        connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", rows)
    reply = await served.client.ask("GET", "/v2/app/tags/list")
    assert len(reply.json["tags"]) == 10_000 and "next" in reply.headers["Link"]
    reply = await served.client.ask("GET", "/v2/app/tags/list?last=t049990")
    assert reply.json["tags"] == [f"t{number:06}" for number in range(49_991, 50_000)]
    assert (await served.client.ask("DELETE", f"/v2/app/manifests/{BUILT.digest}")).status == 202
    assert (await served.client.ask("GET", "/v2/app/tags/list")).json["tags"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../../etc/passwd/manifests/1",
        "/v2/%2e%2e/%2e%2e/etc/manifests/1",
        "/v2/a/blobs/../../../index.db",
        "/v2/a%2f..%2f..%2fb/tags/list",
        "/v2/a/blobs/sha256:..%2f..%2findex.db",
        "/v2/a/manifests/..%2f..%2findex.db",
        "/v2/a\\..\\b/tags/list",
        "/v2/a/blobs/uploads/..%2f..%2findex.db",
        "/v2/" + "a/" * 4000 + "tags/list",
        "/v2/%ff%fe/tags/list",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_path_that_leads_out_finds_nothing(served: Served, path: str, method: str) -> None:
    head = f"{method} {path} HTTP/1.1\nHost: x\nConnection: close\nContent-Length: 0\n\n"
    async with raw(served, head) as (reader, _):
        said = await asyncio.wait_for(reader.read(), 10)
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 405")), said
    assert b"Traceback" not in said
    assert served.registry.content.index.totals()[0] == 0


async def test_others_are_served_while_the_largest_manifest_is_read(served: Served) -> None:
    await served.client.push("app", BUILT, "1")
    entry = {"digest": BUILT.id, "size": 1}
    data = json.dumps({"schemaVersion": 2, "config": entry, "layers": [entry] * 40_000}).encode()
    assert len(data) < 4 << 20
    pushes = asyncio.create_task(served.client.push_manifest("app", "big", data))
    slowest = 0.0
    while not pushes.done():
        began = time.monotonic()
        assert (await served.client.ask("HEAD", f"/v2/app/blobs/{BUILT.id}")).status == 200
        slowest = max(slowest, time.monotonic() - began)
    assert (await pushes).status == 201
    assert slowest < 2.0
