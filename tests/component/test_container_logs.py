"""Reading, following and rotating k8s-file logs, with a writer that behaves as conmon does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.logs import LogQuery, LogReader
from agent.rotation import LogRotator, rotate
from aio.inotify import DirectoryBells
from model.spec import LogOptions
from model.streams import STDERR, STDOUT
from tests.support.waiting import until

BASE = 1_700_000_000


def line(text: str, *, at: int = 0, stream: str = "stdout", tag: str = "F") -> str:
    stamp = datetime.fromtimestamp(BASE + at, UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789+00:00")
    return f"{stamp} {stream} {tag} {text}\n"


class Writer:
    """Writes as conmon: goes on in a renamed file until told to reopen; reopening replaces the live file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, text: str) -> None:
        os.write(self._fd, text.encode())

    async def reopen(self, directory: str) -> None:
        os.close(self._fd)
        fresh = Path(f"{self.path}.tmp")
        self._fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.rename(fresh, self.path)

    def close(self) -> None:
        os.close(self._fd)

    def inode(self) -> int:
        """Of the live file, 0 between rename and reopen."""
        return os.stat(self.path).st_ino if self.path.exists() else 0


@pytest.fixture
async def reader() -> AsyncIterator[LogReader]:
    reader = LogReader()
    yield reader
    reader.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "container.log")
    yield writer
    writer.close()


async def texts(items: AsyncIterator[tuple[int, bytes]]) -> list[str]:
    return [text.decode() async for _, text in items]


async def test_read_absent_log_gives_nothing(reader: LogReader, tmp_path: Path) -> None:
    assert await texts(reader.read(str(tmp_path / "none.log"), LogQuery())) == []
    assert await texts(reader.read(str(tmp_path / "no/none.log"), LogQuery(tail=3))) == []


async def test_read_joins_parts_and_keeps_streams(reader: LogReader, writer: Writer) -> None:
    writer.write(line("ab", tag="P") + line("oops", stream="stderr") + line("cd") + "garbage\n")
    items = [item async for item in reader.read(str(writer.path), LogQuery())]
    assert items == [(STDOUT, b"ab"), (STDERR, b"oops\n"), (STDOUT, b"cd\n")]
    stamped = await texts(reader.read(str(writer.path), LogQuery(timestamps=True)))
    assert stamped[0].endswith("123456789Z ab")
    assert stamped[2] == "cd\n"
    errors = LogQuery(streams=frozenset({STDERR}))
    assert await texts(reader.read(str(writer.path), errors)) == ["oops\n"]


async def test_read_since_until_gives_the_span(reader: LogReader, writer: Writer) -> None:
    writer.write("".join(line(str(n), at=n) for n in range(10)))
    span = LogQuery(since=BASE + 3, until=BASE + 6)
    assert await texts(reader.read(str(writer.path), span)) == ["3\n", "4\n", "5\n"]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5000), max_size=60),
    cuts=st.sets(st.integers(0, 60), max_size=3),
    parts=st.sets(st.integers(0, 60)),
    tail=st.integers(0, 70),
)
async def test_tail_over_rotated_files_is_the_end_of_all(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cuts: set[int], parts: set[int], tail: int
) -> None:
    reader = LogReader()
    writer = Writer(tmp_path_factory.mktemp("log") / "container.log")
    lines = [""]
    for number, size in enumerate(sizes):
        part = number in parts and number != len(sizes) - 1
        writer.write(line("x" * size, tag="P" if part else "F"))
        lines[-1] += "x" * size + ("" if part else "\n")
        if not part:
            lines.append("")
        if number in cuts:
            rotate(str(writer.path), LogOptions(max_size=1, max_files=10))
            await writer.reopen("")
    lines.pop()
    wanted = "".join(lines[-tail:] if tail else [])
    assert "".join(await texts(reader.read(str(writer.path), LogQuery(tail=tail)))) == wanted
    assert "".join(await texts(reader.read(str(writer.path), LogQuery()))) == "".join(lines)
    reader.close()
    writer.close()


async def test_tail_of_a_stream_whose_lines_are_far_back_lets_others_run(
    reader: LogReader, writer: Writer
) -> None:
    writer.write(line("oops", stream="stderr"))
    for _ in range(20):
        writer.write(line("x" * 200) * 1000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        running = group.create_task(others())
        items = reader.read(str(writer.path), LogQuery(tail=1, streams=frozenset({STDERR})))
        assert await anext(items) == (STDERR, b"oops\n")
        running.cancel()
    assert turns > 50, "one for each block"
    await items.aclose()


async def test_follow_through_rotations_loses_and_doubles_nothing(reader: LogReader, writer: Writer) -> None:
    ended = False
    got: list[str] = []
    rotator = LogRotator(writer.reopen, pause=0.01)
    rotator.add(str(writer.path), "bundle", LogOptions(max_size=20_000, max_files=1000))

    async def follow() -> None:
        async for _, text in reader.follow(str(writer.path), LogQuery(), lambda: ended):
            got.append(text.decode().rstrip())

    async def write() -> None:
        nonlocal ended
        before = writer.inode()
        for number in range(4000):
            writer.write(line(str(number)))
            if number % 500 == 499:
                await until(partial(_changed, writer, before), deadline=20, what="rotation")
                before = writer.inode()
        ended = True
        reader.wake(str(writer.path))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(rotator.run())
        following = group.create_task(follow())
        await write()
        await following
        running.cancel()
    assert got == [str(n) for n in range(4000)]
    assert len(list(writer.path.parent.glob("container.log.*"))) >= 4


async def test_follow_slow_reader_still_gets_every_line(reader: LogReader, writer: Writer) -> None:
    ended = False
    items = reader.follow(str(writer.path), LogQuery(tail=0), lambda: ended)
    writer.write(line("before"))
    first = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    for number in range(3):
        writer.write(line(f"a{number}"))
        assert rotate(str(writer.path), LogOptions(max_size=1, max_files=9)) == "renamed"
        writer.write(line(f"b{number}"))
        await writer.reopen("")
    ended = True
    rest = [(await first)[1]] + [text async for _, text in items]
    assert [t.decode().strip() for t in rest] == ["a0", "b0", "a1", "b1", "a2", "b2"]


async def test_follow_wakes_by_itself_when_a_line_is_written(reader: LogReader, writer: Writer) -> None:
    items = reader.follow(str(writer.path), LogQuery(), lambda: False)
    writer.write(line("one"))
    async with asyncio.timeout(5):
        assert (await anext(items))[1] == b"one\n"
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0.05)
        writer.write(line("two"))
        assert (await waiting)[1] == b"two\n"
        assert not reader._bells.polling, "by the kernel's word, not by the clock"
    await items.aclose()  # type: ignore[attr-defined]


async def test_follow_without_inotify_polls(reader: LogReader, writer: Writer) -> None:
    bells = DirectoryBells()
    bells.close()
    reader._bells = bells
    items = reader.follow(str(writer.path), LogQuery(), lambda: False)
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    assert bells.polling
    writer.write(line("found"))
    async with asyncio.timeout(5):
        assert (await waiting)[1] == b"found\n"
    await items.aclose()  # type: ignore[attr-defined]


def _changed(writer: Writer, inode: int) -> bool:
    return writer.inode() not in (0, inode)


async def test_rotator_large_log_keeps_max_files(writer: Writer) -> None:
    rotator = LogRotator(writer.reopen, pause=0.01)
    rotator.add(str(writer.path), "bundle", LogOptions(max_size=100, max_files=3))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(rotator.run())
        for _ in range(4):
            before = writer.inode()
            writer.write(line("x" * 200))
            await until(partial(_changed, writer, before), deadline=5, what="rotation")
        await until(lambda: len(os.listdir(writer.path.parent)) == 3, deadline=5)
        running.cancel()
    names = sorted(path.name for path in writer.path.parent.iterdir())
    assert names == ["container.log", "container.log.3", "container.log.4"]


async def test_rotator_lost_reopen_is_told_again(tmp_path: Path) -> None:
    (tmp_path / "container.log.1").write_text(line("x"))
    told = asyncio.Event()

    async def reopen(directory: str) -> None:
        assert directory == "bundle"
        told.set()

    rotator = LogRotator(reopen)
    rotator.add(str(tmp_path / "container.log"), "bundle", LogOptions())
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(rotator.run())
        await told.wait()
        running.cancel()
