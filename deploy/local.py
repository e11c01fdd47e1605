"""Transport to the machine that we run on: no SSH, the same steps."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from aio.subprocess import Heard, run
from aio.supervisor import Supervisor
from deploy import transport as t
from deploy.inventory import LOCAL
from model.errors import CommandFailed, DeadlineExceeded

PUT_DEADLINE = 300.0
CAN_NOT_RUN = 127
"""As a shell has it."""


class LocalTransport:
    """See `deploy.transport.Transport`."""

    def __init__(self) -> None:
        self._sudo: bool | None = None

    @property
    def host(self) -> str:
        return LOCAL

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, root: bool = True
    ) -> t.Finished:
        return await self._run(await self._words(argv, root), stdin, timeout, None)

    async def stream(self, argv: Sequence[str], *, timeout: float, root: bool = True, heard: Heard) -> int:
        done = await self._run(await self._words(argv, root), None, timeout, heard)
        if done.code == CAN_NOT_RUN and done.err:
            heard(2, done.err + b"\n")
        return done.code

    async def _run(
        self, words: list[str], stdin: bytes | None, timeout: float, heard: Heard | None
    ) -> t.Finished:
        try:
            done = await run(words, deadline=timeout, stdin=stdin, env=_environment(), heard=heard)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"{LOCAL}: {error.message}") from error
        except CommandFailed as error:
            return t.Finished(code=CAN_NOT_RUN, err=error.message.encode())
        return t.Finished(
            code=done.code if done.code >= 0 else 128 - done.code, out=done.stdout, err=done.stderr
        )

    async def put(self, source: Path, target: str, mode: int) -> None:
        digest = await asyncio.to_thread(t.file_digest, source)
        head, _, *rest = t.put_argv(target, mode, digest)
        script = f'exec <"$4"\n{t.PUT}'
        done = await self.run([head, "-c", script, *rest[1:], str(source)], timeout=PUT_DEADLINE)
        if done.code:
            raise t.put_failure(LOCAL, target, done)

    @contextlib.asynccontextmanager
    async def held(self, argv: Sequence[str], *, timeout: float) -> AsyncIterator[str]:
        process = await asyncio.create_subprocess_exec(
            *await self._words(argv, True),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            try:
                async with asyncio.timeout(timeout):
                    first = await process.stdout.readline()
            except TimeoutError:
                raise DeadlineExceeded(f"{LOCAL}: {argv[0]} says nothing") from None
            async with Supervisor(LOCAL) as beats:
                beats.start("beat", lambda: _beat(process))
                yield first.decode(errors="replace").strip()
        finally:
            process.stdin.close()
            await process.wait()

    async def close(self) -> None:
        return

    async def _words(self, argv: Sequence[str], root: bool) -> list[str]:
        if not root or os.geteuid() == 0:
            return list(argv)
        if self._sudo is None:
            done = await self.run(["sh", "-c", t.MAY_BE_ROOT], timeout=20.0, root=False)
            if failure := t.root_failure(LOCAL, done):
                raise failure
            self._sudo = True
        return ["sudo", "-n", "--", "env", "LC_ALL=C", *argv]


def _environment() -> dict[str, str]:
    """Our own, but for the fleet that our commands are for: `flota` there is asked about this machine's."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FLOTA_HOST", "FLOTA_CREDENTIALS")}
    return {**kept, "LC_ALL": "C"}


async def _beat(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        while True:
            process.stdin.write(b"\n")
            await process.stdin.drain()
            await asyncio.sleep(t.BEAT)
