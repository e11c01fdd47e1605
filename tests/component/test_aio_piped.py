"""Programs as streams: both ways at once, at the pace of the slower, reaped whatever happens."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from aio.piped import PIECE, Piped
from aio.subprocess import DYING
from model.errors import CommandFailed
from tests.support.waiting import until

ENV = {"PATH": os.defpath}


async def test_input_comes_out_whole_and_stderr_is_told_at_the_end() -> None:
    sent = os.urandom(5 << 20)
    piped = await Piped.start(["sh", "-c", "cat; echo over >&2; exit 3"], ENV)

    async def feed() -> None:
        await piped.write(sent)
        piped.close_stdin()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        came = bytearray()
        while data := await piped.read():
            came += data
    ended = await piped.finish()
    await piped.close()
    assert bytes(came) == sent and (ended.code, ended.stderr) == (3, b"over\n")


async def test_program_that_is_let_go_of_is_killed_with_its_children() -> None:
    piped = await Piped.start(["sh", "-c", "sleep 1000 & echo $!; wait"], ENV)
    child = int(await piped.read())
    await piped.close()
    await until(lambda: not os.path.exists(f"/proc/{child}"), deadline=5)
    await piped.close()


async def test_input_that_nobody_reads_is_no_error_but_the_end_tells() -> None:
    piped = await Piped.start(["sh", "-c", "exec <&-; echo why >&2; exit 1"], ENV)
    for _ in range(100):
        await piped.write(bytes(1 << 18))
    assert await piped.read() == b""
    ended = await piped.finish()
    await piped.close()
    assert (ended.code, ended.stderr) == (1, b"why\n")


async def test_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandFailed, match="/no/such"):
        await Piped.start(["/no/such"], ENV)


async def test_output_that_nobody_reads_leaves_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        piped = await Piped.start(["sh", "-c", "exec cat /dev/zero"], ENV)
        assert await piped.read()
        held = piped._process.stdout._buffer  # type: ignore[union-attr,attr-defined]
        await until(lambda held=held: len(held) > PIECE * 2, deadline=5)
        began = time.monotonic()
        await piped.close()
        assert time.monotonic() - began < DYING
    await until(lambda: len(os.listdir("/proc/self/fd")) == len(before), deadline=5)
