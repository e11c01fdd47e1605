"""Containers in memory, for tests of the API and the command line: a few programs, streams, signals, exits.

Programs (first word of the arguments; `sh -c 'a; b'` runs several): echo, err, exit N, cat, sleep, spam N,
size, env. Anything else is not found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec

from model.records import Instance
from model.status import InstanceStatus, Phase
from model.streams import STDERR, STDOUT, Exit
from tests.support.fakefiles import FakeFiles

TERM, KILL, INT = 15, 9, 2


class Program:
    """One process: what it wrote so far, and how it ended."""

    def __init__(self) -> None:
        self.output: list[tuple[int, bytes]] = []
        self.input: asyncio.Queue[bytes] = asyncio.Queue()
        self.signalled: asyncio.Queue[int] = asyncio.Queue()
        self.size: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.exit: Exit | None = None
        self.changed = asyncio.Condition()

    async def say(self, stream: int, data: bytes) -> None:
        async with self.changed:
            self.output.append((stream, data))
            self.changed.notify_all()

    async def end(self, code: int) -> None:
        async with self.changed:
            self.exit = Exit(exit_code=code)
            self.changed.notify_all()

    async def run(self, args: tuple[str, ...], env: dict[str, str]) -> None:
        """To its end; a signal ends it with 128 + number."""
        steps = [tuple(s.split()) for s in args[2].split(";")] if args[:2] == ("sh", "-c") else [args]
        work = asyncio.ensure_future(self._steps(steps, env))
        signal = asyncio.ensure_future(self.signalled.get())
        try:
            await asyncio.wait((work, signal), return_when=asyncio.FIRST_COMPLETED)
            await self.end(work.result() if work.done() else 128 + signal.result())
        finally:
            for task in (work, signal):
                task.cancel()

    async def _steps(self, steps: list[tuple[str, ...]], env: dict[str, str]) -> int:
        for words in steps:
            code = await self._step(words, env)
            if code is not None:
                return code
        return 0

    async def _step(self, words: tuple[str, ...], env: dict[str, str]) -> int | None:
        match words[0]:
            case "echo":
                await self.say(STDOUT, " ".join(words[1:]).encode() + b"\n")
            case "err":
                await self.say(STDERR, " ".join(words[1:]).encode() + b"\n")
            case "exit":
                return int(words[1])
            case "cat":
                while data := await self.input.get():
                    await self.say(STDOUT, data)
            case "sleep":
                await asyncio.Event().wait()
            case "spam":
                for _ in range(int(words[1]) // 65536):
                    await self.say(STDOUT, b"x" * 65536)
                    await asyncio.sleep(0)
            case "size":
                rows, cols = await self.size.get()
                await self.say(STDOUT, f"{rows} {cols}\n".encode())
            case "env":
                await self.say(STDOUT, "".join(f"{k}={v}\n" for k, v in sorted(env.items())).encode())
        return None


class Session:
    """A client of one program: `api.ports.AttachSession`."""

    def __init__(self, program: Program, *, start: int = 0, stdin: bool = True) -> None:
        self._program = program
        self._next = start
        self._stdin = stdin
        self.closed = False

    async def read(self) -> tuple[int, bytes] | None:
        program = self._program
        async with program.changed:
            await program.changed.wait_for(lambda: len(program.output) > self._next or program.exit)
        if len(program.output) > self._next:
            self._next += 1
            return program.output[self._next - 1]
        return None

    async def write(self, data: bytes) -> None:
        if self._stdin:
            await self._program.input.put(data)

    async def close_stdin(self) -> None:
        if self._stdin:
            await self._program.input.put(b"")

    async def resize(self, rows: int, cols: int) -> None:
        await self._program.size.put((rows, cols))

    async def signal(self, signal: int) -> None:
        await self._program.signalled.put(signal)

    async def finish(self) -> Exit:
        assert self._program.exit is not None
        return self._program.exit

    async def close(self) -> None:
        self.closed = True


class FakeContainer:
    """One instance on a fake host. `changed` rings at each new status."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.status = InstanceStatus(instance=instance.id, attempt=1, phase=Phase.CREATED)
        self.program = Program()
        self.sessions: list[Session] = []
        self.changed = asyncio.Condition()
        self.exits = 0
        self.files = FakeFiles()

    @property
    def made(self) -> bool:
        return self.status.phase not in (Phase.ASSIGNED, Phase.PULLING)

    async def become(self, **fields: object) -> None:
        async with self.changed:
            self.status = msgspec.structs.replace(self.status, **fields)
            self.changed.notify_all()

    async def live(self) -> None:
        """One attempt, from start to end."""
        spec = self.instance.spec
        await self.become(phase=Phase.RUNNING, pid=4242, started_at=time.time())
        await self.program.run(spec.args or ("exit", "0"), dict(spec.env))
        assert self.program.exit is not None
        self.exits += 1
        code = self.program.exit.exit_code
        await self.become(phase=Phase.EXITED, pid=0, exit_code=code, finished_at=time.time())

    def attach(self, *, stdin: bool, logs: bool) -> Session:
        start = 0 if logs or not self.status.phase.live else len(self.program.output)
        session = Session(self.program, start=start, stdin=stdin)
        self.sessions.append(session)
        return session

    async def logs(
        self, *, follow: bool, tail: int | None, timestamps: bool
    ) -> AsyncIterator[tuple[int, bytes]]:
        written = list(self.program.output)
        for kind, data in written[-tail:] if tail else written if tail is None else []:
            yield kind, (b"2026-01-01T00:00:00.000000000Z " if timestamps else b"") + data
        if follow:
            session = Session(self.program, start=len(written))
            while (item := await session.read()) is not None:
                yield item
