"""Hijacked connections: attach and exec through a controller to a host; sides that vanish."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.listen import serve_unix
from api.server import controller_app, runner
from model.codec import decode_json
from model.errors import ErrorBody
from model.streams import (
    ERROR,
    EXIT,
    RESIZE,
    SIGNAL,
    STDERR,
    STDIN,
    STDOUT,
    Exit,
    Unframer,
    pack,
    pack_resize,
)
from tests.support.fakecontainers import Session
from tests.support.fakeports import FakeFleet
from tests.support.waiting import until

DEADLINE = 20


class Stream:
    """One upgraded connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head
        self.frames: list[tuple[int, bytes]] = []
        self._unframer = Unframer()

    async def until(self, kind: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Read frames until one of `kind` that holds `data`."""
        async with asyncio.timeout(DEADLINE):
            while not any(k == kind and data in d for k, d in self.frames):
                chunk = await self.reader.read(1 << 16)
                assert chunk, f"ended with {self.frames}"
                self.frames += self._unframer.feed(chunk)
        return self.frames

    async def exit(self) -> Exit:
        frames = await self.until(EXIT)
        return decode_json(frames[-1][1], Exit)

    def close(self) -> None:
        self.writer.close()


class Door:
    def __init__(self, fleet: FakeFleet, socket: str) -> None:
        self.fleet = fleet
        self.socket = socket
        self._open: list[Stream] = []

    async def upgrade(self, path: str, body: bytes = b"", upgrade: bool = True) -> Stream:
        reader, writer = await asyncio.open_unix_connection(self.socket)
        wish = "Connection: Upgrade\r\nUpgrade: flota-stream\r\n" if upgrade else ""
        head = f"POST {path} HTTP/1.1\r\nHost: flota\r\n{wish}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        async with asyncio.timeout(DEADLINE):
            stream = Stream(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        self._open.append(stream)
        return stream

    async def create(self, name: str, *args: str, start: bool = True) -> None:
        from model.api import CreateInstance
        from model.spec import ContainerSpec

        spec = ContainerSpec(image="box:1", args=args, stdin=True)
        await self.fleet.create_instance(CreateInstance(spec=spec, name=name, start=start))
        if start:
            await self.fleet.wait_instance(name, "running")
            await asyncio.sleep(0)

    async def exec(self, *args: str) -> Stream:
        return await self.upgrade(
            "/v1/instances/web/exec", json.dumps({"args": args, "stdin": True}).encode()
        )

    def sessions(self) -> list[Session]:
        return [s for h in self.fleet.hosts.values() for c in h.containers.values() for s in c.sessions]

    async def close(self) -> None:
        for stream in self._open:
            stream.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with FakeFleet(1) as fleet:
        app = runner(controller_app(fleet, fleet_id="fleet"))
        await app.setup()
        await serve_unix(app, str(tmp_path / "s"))
        made = Door(fleet, str(tmp_path / "s"))
        yield made
        await made.close()
        await app.cleanup()


async def test_attach_before_start_sees_all_output_and_the_exit(door: Door) -> None:
    await door.create("web", "sh", "-c", "echo out; err oops; exit 7", start=False)
    stream = await door.upgrade("/v1/instances/web/attach")
    assert b"101 Switching Protocols" in stream.head and b"flota-stream" in stream.head
    await door.fleet.start_instance("web")
    assert (await stream.exit()).exit_code == 7
    assert stream.frames[:2] == [(STDOUT, b"out\n"), (STDERR, b"oops\n")]
    assert await stream.reader.read() == b""
    await until(lambda: door.sessions()[0].closed, deadline=DEADLINE)


async def test_twenty_megabytes_come_back_and_the_end_of_input_is_a_frame(door: Door) -> None:
    await door.create("web", "sleep")
    stream = await door.exec("cat")
    sent = bytes(range(256)) * 4096
    unframer, got, ended = Unframer(), bytearray(), False

    async def send() -> None:
        for _ in range(20):
            stream.writer.write(pack(STDIN, sent))
            await stream.writer.drain()
        stream.writer.write(pack(STDIN, b""))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(send())
        while not ended:
            chunk = await stream.reader.read(1 << 18)
            assert chunk
            for kind, data in unframer.feed(chunk):
                got += data if kind == STDOUT else b""
                ended = ended or kind == EXIT
    assert len(got) == 20 << 20 and got == sent * 20


async def test_resize_and_signal_reach_the_process(door: Door) -> None:
    await door.create("web", "sleep")
    stream = await door.exec("size")
    stream.writer.write(pack_resize(33, 111))
    assert (await stream.exit()).exit_code == 0
    assert stream.frames[0] == (STDOUT, b"33 111\n")
    stream = await door.exec("sleep")
    stream.writer.write(pack(SIGNAL, bytes([15])))
    assert (await stream.exit()).exit_code == 143


@pytest.mark.parametrize(
    "frame", [b"\x09\0\0\0\0\0\0\0", b"\0\0\0\0\xff\xff\xff\xff", pack(RESIZE, b"x"), pack(SIGNAL, b""),
              pack(STDOUT, b"no"), pack(SIGNAL, b"\xff")]
)  # fmt: skip
async def test_malformed_frame_ends_the_stream_with_an_error(door: Door, frame: bytes) -> None:
    await door.create("web", "sleep")
    stream = await door.exec("sleep")
    stream.writer.write(frame)
    frames = await stream.until(ERROR)
    assert decode_json(frames[-1][1], ErrorBody).code == "invalid_input"
    assert await stream.reader.read() == b""


async def test_vanished_client_ends_its_session_and_not_the_container(door: Door) -> None:
    await door.create("web", "sleep")
    stream = await door.upgrade("/v1/instances/web/attach?stdin=1")
    stream.close()
    await until(lambda: door.sessions()[0].closed, deadline=DEADLINE)
    assert door.fleet.get_instance("web").status.phase == "running"


async def test_half_closed_client_ends_its_session(door: Door) -> None:
    await door.create("web", "sleep")
    stream = await door.upgrade("/v1/instances/web/attach")
    stream.writer.write_eof()
    async with asyncio.timeout(DEADLINE):
        assert await stream.reader.read() == b""
    await until(lambda: door.sessions()[0].closed, deadline=DEADLINE)


async def test_client_that_never_reads_holds_up_nobody(door: Door) -> None:
    await door.create("web", "sleep")
    deaf = await door.exec("spam", str(64 << 20))
    other = await door.exec("echo", "hi")
    assert (await other.exit()).exit_code == 0
    deaf.close()
    await until(lambda: door.sessions()[0].closed, deadline=DEADLINE)


async def test_hundred_attaches_leave_nothing(door: Door) -> None:
    await door.create("web", "sleep")
    tasks = len(asyncio.all_tasks())
    for _ in range(100):
        (await door.upgrade("/v1/instances/web/attach")).close()
    await until(lambda: all(s.closed for s in door.sessions()), deadline=DEADLINE)
    await until(lambda: len(asyncio.all_tasks()) <= tasks + 2, deadline=DEADLINE)


async def test_request_without_upgrade_is_refused_in_words(door: Door) -> None:
    await door.create("web", "sleep")
    stream = await door.upgrade("/v1/instances/web/attach", upgrade=False)
    assert b"400 Bad Request" in stream.head
    assert b"Upgrade: flota-stream" in await stream.reader.read()
    assert door.sessions() == []


async def test_refusal_of_a_host_reaches_the_client_as_it_is(door: Door) -> None:
    await door.create("web", "exit", "0", start=False)
    stream = await door.exec("echo")
    assert b"409 Conflict" in stream.head
    async with asyncio.timeout(DEADLINE):
        assert b"container web is not running" in await stream.reader.readuntil(b"}")


async def test_quiet_followed_log_of_a_vanished_client_is_closed(door: Door) -> None:
    await door.create("web", "sleep")
    tasks = len(asyncio.all_tasks())
    reader, writer = await asyncio.open_unix_connection(door.socket)
    writer.write(b"GET /v1/instances/web/logs?follow=1 HTTP/1.1\r\nHost: flota\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert len(asyncio.all_tasks()) > tasks
    writer.close()
    await until(lambda: len(asyncio.all_tasks()) <= tasks, deadline=DEADLINE)


async def test_followed_log_and_attach_of_a_lost_host_end_in_words(door: Door) -> None:
    await door.create("web", "sleep")
    attached = await door.upgrade("/v1/instances/web/attach")
    reader, writer = await asyncio.open_unix_connection(door.socket)
    writer.write(b"GET /v1/instances/web/logs?follow=1 HTTP/1.1\r\nHost: flota\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    door.fleet.give_up("host n1 was lost")
    frames = await attached.until(ERROR)
    assert decode_json(frames[-1][1], ErrorBody).message == "host n1 was lost"
    async with asyncio.timeout(DEADLINE):
        assert await attached.reader.read() == b""
        rest = await reader.read()
    writer.close()
    assert b"host n1 was lost" in rest and rest.endswith(b"\r\n0\r\n\r\n")
