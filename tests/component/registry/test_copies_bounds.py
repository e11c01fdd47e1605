"""What a host that was taken over can make of the end points for copies: little."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from controller.copyplan import BELIEVED
from controller.registrycopies import MOST_INDEX, MOST_REPORT
from image.registry.server.copies import Head, Snapshot
from image.registry.server.limits import Limits
from model.registrycopies import PATH, CopyReport
from tests.support.images import digest
from tests.support.servedcopies import WHO, ServedCopies, copies_served
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(60)
LIMITS = Limits(reserve=0)
WASTE = digest(b"waste")


async def test_state_that_a_host_only_speaks_of_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with copies_served(tmp_path, "liar", "good", limits=LIMITS) as served:
        for day, dropped in enumerate([(), (WASTE,)]):
            claim = CopyReport(lineage="f" * 32, generation=day)
            assert (await served.report("liar", claim)).send_index
            own = await served.ask("good", "GET", "/index")
            head = {
                "lineage": own.headers["Flota-Lineage"],
                "generation": int(own.headers["Flota-Generation"]),
            }
            told = await served.report("good", CopyReport(have=(WASTE,), **head))  # type: ignore[arg-type]
            assert told.drop == dropped
            await served.clock.advance(BELIEVED + 1)


@contextlib.asynccontextmanager
async def raw(
    served: ServedCopies, host: str, line: str, length: int = 0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    head = f"{line} HTTP/1.1\r\nHost: x\r\n{WHO}: {host}\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(10):
        return int((await reader.readline()).split()[1])


def spooled(folder: Path) -> list[int]:
    return [path.stat().st_size for path in (folder / "uploads").iterdir()]


STATE = Snapshot(head=Head(lineage="f" * 32, generation=7))
CLAIM = CopyReport(lineage="f" * 32, generation=7)


async def test_state_lies_in_a_file_while_it_comes_and_a_host_sends_one_at_a_time(tmp_path: Path) -> None:
    async with copies_served(tmp_path, "n1", "n2", limits=LIMITS) as served:
        await served.report("n1", CLAIM)
        await served.report("n2", CLAIM)
        async with raw(served, "n1", f"PUT {PATH}/index", MOST_INDEX) as (_, writer):
            writer.write(b"x" * (8 << 20))
            await until(lambda: sum(spooled(tmp_path)) > 6 << 20, deadline=10, what="it lies in a file")
            assert (await served.ask("n1", "PUT", "/index", b"x")).status == 429
            assert (await served.ask("n2", "PUT", "/index", msgspec.msgpack.encode(STATE))).status == 204
        await until(lambda: spooled(tmp_path) == [], deadline=10, what="it is gone with its connection")


async def test_state_that_broke_off_may_come_again(tmp_path: Path) -> None:
    async with copies_served(tmp_path, "n1", limits=LIMITS) as served:
        await served.report("n1", CLAIM)
        async with raw(served, "n1", f"PUT {PATH}/index", 10) as (_, writer):
            writer.write(b"x")
            await until(lambda: spooled(tmp_path) != [], deadline=10, what="it comes")
        await until(lambda: spooled(tmp_path) == [], deadline=10, what="it broke off")
        assert (await served.report("n1", CLAIM)).send_index
        assert (await served.ask("n1", "PUT", "/index", msgspec.msgpack.encode(STATE))).status == 204
        assert not (await served.report("n1", CLAIM)).send_index


@pytest.mark.parametrize(
    ("line", "most"),
    [(f"PUT {PATH}/index", MOST_INDEX), (f"POST {PATH}", MOST_REPORT)],
    ids=["state", "report"],
)
async def test_body_that_is_said_to_be_too_large_is_refused_at_its_first_bytes(
    tmp_path: Path, line: str, most: int
) -> None:
    async with copies_served(tmp_path, "n1", limits=LIMITS) as served:
        await served.report("n1", CLAIM)
        async with raw(served, "n1", line, most + 1) as (reader, writer):
            writer.write(b"x")
            assert await status(reader) == 413


def lost(served: ServedCopies, data: bytes) -> str:
    """A blob that the registry waits for."""
    index = served.registry.content.index
    index.link("team/box", digest(data), served.clock.now(), size=len(data))
    index.lose(digest(data))
    return digest(data)


async def test_host_that_sends_nothing_any_more_is_cut_off(tmp_path: Path) -> None:
    async with copies_served(tmp_path, "n1", limits=Limits(reserve=0, silence=0.3)) as served:
        await served.report("n1", CLAIM)
        for line in (f"PUT {PATH}/blobs/{lost(served, b'four')}", f"PUT {PATH}/index", f"POST {PATH}"):
            async with raw(served, "n1", line, 4) as (reader, writer):
                writer.write(b"f")
                assert await status(reader) == 408
        assert spooled(tmp_path) == []


async def test_host_sends_no_more_blobs_at_once_than_any_client_may(tmp_path: Path) -> None:
    async with copies_served(tmp_path, "n1", "n2", limits=Limits(reserve=0, bodies_each=1)) as served:
        first, second = lost(served, b"first"), lost(served, b"second")
        async with raw(served, "n1", f"PUT {PATH}/blobs/{first}", 5) as (_, writer):
            writer.write(b"f" * 4)
            await until(lambda: bool(served.copies._sending), deadline=10, what="it comes")
            assert (await served.ask("n1", "PUT", f"/blobs/{second}", b"second")).status == 429
            assert (await served.ask("n2", "PUT", f"/blobs/{second}", b"second")).status == 204
        await until(lambda: not served.copies._sending, deadline=10, what="it is over")
        assert (await served.ask("n1", "PUT", f"/blobs/{first}", b"first")).status == 204


async def test_host_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    async with copies_served(tmp_path, "n1", limits=Limits(reserve=0, window=0.3)) as served:
        found = await served.client.push_blob("app", os.urandom(1 << 20) * 24)
        async with raw(served, "n1", f"GET {PATH}/blobs/{found}") as (reader, _):
            began = time.monotonic()
            await asyncio.sleep(1.5)
            with contextlib.suppress(ConnectionError):
                assert len(await reader.read(-1)) < 24 << 20
            assert time.monotonic() - began < 20
        assert served.registry.content.index.blob(found) == 24 << 20
