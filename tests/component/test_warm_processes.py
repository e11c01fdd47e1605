"""Work in processes forked from a warm one: what they are told and say, and that none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aio.warm import Warm
from aio.warmed import listen
from model.errors import CommandFailed, DeadlineExceeded
from tests.support.waiting import until

MODULE = "tests.support.warmwork"


async def told(*pieces: bytes, then: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if then is not None:
        await then.wait()


def lives(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


async def test_processes_hear_what_comes_piece_by_piece_and_answer() -> None:
    warm = Warm(MODULE)
    try:
        first, second = await asyncio.gather(
            warm.run(told(b"echo\n", b"a", b"b"), deadline=20), warm.run(told(b"pid\n"), deadline=20)
        )
        assert first == b"ab"
        assert second != await warm.run(told(b"pid\n"), deadline=20)
    finally:
        await warm.close()


async def test_process_that_nobody_waits_for_any_more_is_dead(tmp_path: Path) -> None:
    warm, file = Warm(MODULE), tmp_path / "pid"
    try:
        work = asyncio.ensure_future(
            warm.run(told(b"sleep %s\n" % bytes(file), then=asyncio.Event()), deadline=60)
        )
        await until(lambda: file.exists() and file.read_text(), deadline=20)
        pid = int(file.read_text())
        assert lives(pid)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not lives(pid)
    finally:
        await warm.close()


async def test_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    warm, file = Warm(MODULE), tmp_path / "pid"
    try:
        await warm.run(told(b"pid\n"), deadline=20)
        with pytest.raises(DeadlineExceeded):
            await warm.run(told(b"sleep %s\n" % bytes(file), then=asyncio.Event()), deadline=2)
        assert not file.exists() or not lives(int(file.read_text()))
    finally:
        await warm.close()


async def test_warm_process_that_was_killed_is_started_again() -> None:
    warm = Warm(MODULE)
    try:
        parent = int(await warm.run(told(b"parent\n"), deadline=20))
        os.kill(parent, signal.SIGKILL)
        await until(lambda: not lives(parent), deadline=5)
        assert int(await warm.run(told(b"parent\n"), deadline=20)) != parent
    finally:
        await warm.close()


async def test_warm_process_that_hangs_is_given_up_and_started_again() -> None:
    warm = Warm(MODULE, starting=4)
    try:
        parent = int(await warm.run(told(b"parent\n"), deadline=20))
        os.kill(parent, signal.SIGSTOP)
        async with asyncio.timeout(20):
            with pytest.raises(CommandFailed, match="did not start within 4 s"):
                await warm.run(told(b"echo\n", b"x"), deadline=20)
            assert await warm.run(told(b"echo\n", b"x"), deadline=20) == b"x"
        assert not lives(parent)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(parent, signal.SIGKILL)
        await warm.close()


async def test_warm_process_that_hangs_is_killed_when_it_is_closed() -> None:
    warm = Warm(MODULE)
    parent = int(await warm.run(told(b"parent\n"), deadline=20))
    os.kill(parent, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            await warm.close()
        assert not lives(parent)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(parent, signal.SIGKILL)


class Refusing(Warm):
    """Its warm process is a thread here that may not fork."""

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.thread = threading.Thread(target=self._serve, args=(theirs,))
        self.thread.start()
        return ours

    def _serve(self, control: socket.socket) -> None:
        with control:
            listen(control, None, self._fork)

    def _fork(self) -> int:
        raise OSError(errno.EAGAIN, "no process is free")


async def test_process_that_cannot_be_forked_is_refused_alone() -> None:
    warm = Refusing(MODULE)
    for _ in range(2):
        with pytest.raises(CommandFailed, match="could not be started: no process is free"):
            await warm.run(told(b"pid\n"), deadline=20)
        assert warm.thread.is_alive()
    await warm.close()
    await asyncio.to_thread(warm.thread.join, 20)
    assert not warm.thread.is_alive()


async def test_warm_process_ends_when_nobody_needs_it_and_not_before(tmp_path: Path) -> None:
    warm, file, over = Warm(MODULE, idle=0.05), tmp_path / "pid", asyncio.Event()
    try:
        parent = int(await warm.run(told(b"parent\n"), deadline=20))
        work = asyncio.ensure_future(warm.run(told(b"sleep %s\n" % bytes(file), then=over), deadline=60))
        await until(lambda: file.exists() and file.read_text(), deadline=20)
        worker = int(file.read_text())
        await asyncio.wait([work], timeout=0.5)  # far longer than it is kept for nobody
        assert not work.done() and lives(parent)
        over.set()
        assert await work == b"awake"
        assert not lives(worker)
        await until(lambda: not lives(parent), deadline=5)
        assert await warm.run(told(b"echo\n", b"x"), deadline=20) == b"x"
    finally:
        await warm.close()


async def test_failure_of_the_work_is_said_in_its_words() -> None:
    warm = Warm(MODULE)
    try:
        assert b"ValueError: no such work" in await warm.run(told(b"other\n"), deadline=20)
    finally:
        await warm.close()


async def test_what_was_said_is_heard_though_more_is_told_after_its_end() -> None:
    async def deaf() -> AsyncIterator[bytes]:
        yield b"other\n"
        for _ in range(3):
            time.sleep(0.5)  # noqa: ASYNC251 - it ends before the loop looks at its socket again
            yield b"more"

    warm = Warm(MODULE)
    try:
        await warm.run(told(b"pid\n"), deadline=20)
        assert b"no such work" in await warm.run(deaf(), deadline=20)
    finally:
        await warm.close()
