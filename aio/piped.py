"""A program whose input and output are streams of any length, with the pace of whoever reads and writes.

Invariant: it is reaped, whatever happens, and killed with its process group when it is let go of before its
end. What it says on stderr is kept up to a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from aio.subprocess import DYING, OUTPUT_CAP, Completed, dead
from model.errors import CommandFailed

PIECE = 1 << 18


class Piped:
    """Made by `start`; `close` must be called, and may be at any time."""

    def __init__(self, argv: Sequence[str], process: asyncio.subprocess.Process) -> None:
        self._argv = tuple(argv)
        self._process = process
        self._said = asyncio.get_running_loop().create_task(self._listen())

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str]) -> Piped:
        """Raises CommandFailed when it can't be started."""
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(env),
                start_new_session=True,
                limit=PIECE,
            )
        except OSError as error:
            raise CommandFailed(f"cannot run {argv[0]}: {error.strerror}") from error
        return cls(argv, process)

    async def read(self) -> bytes:
        """More of its output; empty at the end."""
        assert self._process.stdout is not None
        return await self._process.stdout.read(PIECE)

    async def write(self, data: bytes) -> None:
        """Once it has ended, what is written is lost; its end tells why."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    def close_stdin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def finish(self) -> Completed:
        """Its end, once `read` gave nothing more; what it said is the stderr of it."""
        said = await asyncio.shield(self._said)
        code = await self._process.wait()
        return Completed(self._argv, code, b"", said)

    async def close(self) -> None:
        """End it, if it has not ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._said.cancel()
        await asyncio.wait((self._said,))
        self.close_stdin()
        await self._emptied()
        await dead(self._process)

    async def _emptied(self) -> None:
        """Read what nobody wanted: a pipe that is full is not seen to be over, and stays open."""
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DYING):
                    while await stream.read(PIECE):
                        pass

    async def _listen(self) -> bytes:
        assert self._process.stderr is not None
        kept = bytearray()
        while chunk := await self._process.stderr.read(1 << 16):
            if len(kept) < OUTPUT_CAP:
                kept += chunk[: OUTPUT_CAP - len(kept)]
        return bytes(kept)
