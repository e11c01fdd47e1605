"""Reading a container's log: the last lines, a span of time, and on as it grows.

A reader holds one file open and goes through the rotated ones in order, so a line is never lost or told twice
while it follows, however often the log is rotated. Invariant: memory is bounded by one block and one line of
conmon's (8 KiB); a slow reader slows nobody but itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from io import FileIO

from agent.logformat import LogLine, ends_line, parse, rotated, stamp_for_people
from aio.inotify import DirectoryBells
from model.spec import Struct
from model.streams import STDERR, STDOUT

_BLOCK = 1 << 16
_MAX_LINE = 1 << 17
_RECHECK = 10.0
"""Seconds after which a follower looks even if no bell rang."""


class LogQuery(Struct):
    """`tail` None: from the beginning. Times are unix seconds."""

    tail: int | None = None
    since: float | None = None
    until: float | None = None
    timestamps: bool = False
    streams: frozenset[int] = frozenset({STDOUT, STDERR})


class LogReader:
    """Reads logs; one per agent, since its followers share one inotify instance."""

    def __init__(self) -> None:
        self._bells: DirectoryBells | None = None

    def wake(self, log_path: str) -> None:
        """Let followers of this log look again: call it when `ended` of `follow` has become true."""
        if self._bells is not None:
            self._bells.ring(os.path.dirname(log_path))

    def close(self) -> None:
        if self._bells is not None:
            self._bells.close()
            self._bells = None

    def read(self, log_path: str, query: LogQuery) -> AsyncGenerator[tuple[int, bytes], None]:
        """(stream, a line or a part of one), oldest first; nothing for a log that does not exist."""
        return self._items(log_path, query, None)

    async def follow(
        self, log_path: str, query: LogQuery, ended: Callable[[], bool]
    ) -> AsyncIterator[tuple[int, bytes]]:
        """As `read`, and then on as it grows, until `ended()` (the container is gone and so is its conmon: no
        line can come) and the last line was given, or until `query.until`."""
        if self._bells is None:
            self._bells = DirectoryBells()
        bell = asyncio.Event()
        stop = self._bells.add(os.path.dirname(log_path), bell.set)

        async def more() -> bool:
            """False at the end; else waits until there may be more."""
            if ended():
                return False
            left = _RECHECK if query.until is None else min(_RECHECK, query.until - time.time())
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(left):
                    await bell.wait()
            except TimeoutError:
                pass
            bell.clear()
            return True

        try:
            async for item in self._items(log_path, query, more):
                yield item
        finally:
            stop()

    async def _items(
        self, log_path: str, query: LogQuery, more: Callable[[], Awaitable[bool]] | None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        printer = _Printer(query)
        files = _Files(log_path)
        try:
            await files.begin(query)
            last = False
            while True:
                block = files.read()
                for line in block:
                    for item in printer.items(line):
                        yield item
                    if printer.done:
                        return
                if block:
                    await asyncio.sleep(0)
                    continue
                if last or more is None:
                    return
                # What was written between the last read and the end is still to be read: once more.
                last = not await more()
        finally:
            files.close()


class _Printer:
    """Turns log lines into what the caller asked for."""

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._middle: set[int] = set()
        self.done = False

    def items(self, raw: bytes) -> list[tuple[int, bytes]]:
        line = parse(raw)
        if line is None or line.stream not in self._query.streams:
            return []
        if not self._within(line):
            return []
        text = line.text + b"\n" if line.full else line.text
        if self._query.timestamps and line.stream not in self._middle:
            text = stamp_for_people(line.stamp) + b" " + text
        if line.full:
            self._middle.discard(line.stream)
        else:
            self._middle.add(line.stream)
        return [(line.stream, text)]

    def _within(self, line: LogLine) -> bool:
        since, until = self._query.since, self._query.until
        if since is None and until is None:
            return True
        try:
            at = line.at
        except ValueError:
            return False
        if until is not None and at > until:
            self.done = True
            return False
        return since is None or at >= since


class _Files:
    """The rotated files and the live one as one sequence of lines."""

    def __init__(self, log_path: str) -> None:
        self._path = log_path
        self._directory, self._name = os.path.split(log_path)
        self._number = 0
        """Of the open file: its own if rotated, else what it will get."""
        self._file: FileIO | None = None
        self._rest = b""

    async def begin(self, query: LogQuery) -> None:
        """Stand before the first line that is wanted."""
        if query.tail is not None:
            await self._seek_tail(query.tail, query.streams)
        else:
            self._open_first(query.since)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> list[bytes]:
        """The next whole lines; empty when there are none now."""
        while True:
            if self._file is None:
                self._open_first(None)
                if self._file is None:
                    return []
            # Whether a newer file exists is asked before the read that finds the end: conmon writes no more
            # to this one once the next is there.
            newer = self._newer()
            block = self._file.read(_BLOCK)
            if block:
                *lines, self._rest = (self._rest + block).split(b"\n")
                if len(self._rest) > _MAX_LINE:
                    self._rest = b""
                if lines:
                    return lines
                continue
            if not newer:
                return []
            self._open(newer)

    def _numbers(self) -> list[int]:
        try:
            return rotated(self._name, os.listdir(self._directory))
        except FileNotFoundError:
            return []

    def _newer(self) -> int:
        """Number of the file after the open one, if that has been started; 0 if not."""
        assert self._file is not None
        try:
            live = os.stat(self._path)
        except FileNotFoundError:
            live = None
        mine = os.fstat(self._file.fileno())
        if live is not None and (live.st_ino, live.st_dev) == (mine.st_ino, mine.st_dev):
            return 0
        after = [number for number in self._numbers() if number > self._number]
        if after:
            return after[0]
        return self._number + 1 if live is not None else 0

    def _open(self, number: int) -> None:
        """Go on in the rotated file of that number, or in the live one if none has it."""
        self.close()
        self._rest = b""
        self._number = number
        for _ in range(3):
            self._file = _open_or_none(f"{self._path}.{number}")
            if self._file is not None:
                return
            self._file = _open_or_none(self._path)
            if self._file is not None and not os.path.exists(f"{self._path}.{number}"):
                return
            # Rotated between the two looks: what was opened is a later file, or nothing.
            self.close()

    def _open_first(self, since: float | None) -> None:
        """The oldest file that may have lines from `since` on."""
        numbers = self._numbers()
        if since is not None:
            numbers = [n for n in numbers if _modified(f"{self._path}.{n}") >= since]
        self._open(numbers[0] if numbers else (self._numbers() or [0])[-1] + 1)

    async def _seek_tail(self, count: int, streams: frozenset[int]) -> None:
        """Stand before the last `count` lines."""
        numbers = self._numbers()
        self._open((numbers or [0])[-1] + 1)
        left = count
        for number in [0, *reversed(numbers)]:
            if number:
                # Not by `_open`: one that was thrown away meanwhile must not become the live one.
                self.close()
                self._file, self._number = _open_or_none(f"{self._path}.{number}"), number
            if self._file is None:
                continue
            offset, left = await _before_last(self._file, left, streams)
            if left < 0:
                self._file.seek(offset)
                return
        self._open_first(None)


def _open_or_none(path: str) -> FileIO | None:
    try:
        return FileIO(path, "rb")
    except FileNotFoundError:
        return None


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


async def _before_last(file: FileIO, count: int, streams: frozenset[int]) -> tuple[int, int]:
    """Look backwards for the end of the line before the last `count`. (Its offset, -1), or (0, how many are
    still wanted) when the file has fewer. Others have their turn after each block: all lines of one stream
    may be far back."""
    end = file.seek(0, os.SEEK_END)
    rest = b""
    """The beginning, not yet seen whole, of the line at `end`."""
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        data = file.read(end - start) + rest
        lines = data.split(b"\n")
        # After the last newline there is nothing, or a line that is being written.
        offset = start + len(data) - len(lines.pop())
        if not lines:
            lines = [b""]
        for line in reversed(lines[1:] if start > 0 else lines):
            if ends_line(line, streams):
                if count == 0:
                    return offset, -1
                count -= 1
            offset -= len(line) + 1
        rest = lines[0] + b"\n" if start > 0 else b""
        end = start
        await asyncio.sleep(0)
    return 0, count
