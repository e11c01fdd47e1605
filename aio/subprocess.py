"""Running programs: argv lists only, with a deadline and an output cap, always reaped, no stray descriptor.

Python 3.11 leaves the child alive when `proc.wait()` is cancelled; here a cancelled or timed-out call kills
the child's whole process group and waits for it, unless it hangs in the kernel, where no signal reaches it:
that one is reaped by the loop whenever it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from model.errors import CommandFailed, DeadlineExceeded

OUTPUT_CAP = 1 << 20
Heard = Callable[[int, bytes], None]
"""1: of standard output, 2: of standard error; bytes as they come, cut anywhere."""
DYING = 2.0
"""Seconds for which a killed program is waited for."""


@dataclass(frozen=True, slots=True)
class Completed:
    argv: tuple[str, ...]
    code: int
    """Exit status; negative: ended by that signal."""
    stdout: bytes
    stderr: bytes

    def check(self) -> Completed:
        """Raise CommandFailed with the program's own last words unless it returned 0."""
        if self.code != 0:
            said = (self.stderr or self.stdout).decode(errors="replace").strip().splitlines()
            words = said[-1][:500] if said else f"exit status {self.code}"
            raise CommandFailed(f"{os.path.basename(self.argv[0])} failed: {words}")
        return self


async def run(
    argv: Sequence[str],
    *,
    deadline: float,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    heard: Heard | None = None,
) -> Completed:
    """Run to its end. Raises DeadlineExceeded after `deadline` s, CommandFailed if it can't start. What it
    says is kept, or `heard` is told of it as it comes."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(
            f"cannot run {argv[0]}: {error.strerror}", hint=f"Is {os.path.basename(argv[0])} installed?"
        ) from error
    try:
        async with asyncio.timeout(deadline):
            stdout, stderr = await _communicate(process, stdin, heard)
            code = await process.wait()
    except TimeoutError as error:
        raise DeadlineExceeded(f"{os.path.basename(argv[0])} did not end within {deadline:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await dead(process)
    return Completed(tuple(argv), code, stdout, stderr)


async def dead(process: asyncio.subprocess.Process) -> None:
    """Wait for one that was killed, unless it hangs in the kernel."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DYING):
            await process.wait()


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None, heard: Heard | None
) -> tuple[bytes, bytes]:
    async with asyncio.TaskGroup() as group:
        if stdin is not None:
            group.create_task(_feed(process, stdin))
        assert process.stdout is not None and process.stderr is not None
        out = group.create_task(_drain(process.stdout, 1, heard))
        err = group.create_task(_drain(process.stderr, 2, heard))
    return out.result(), err.result()


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _drain(stream: asyncio.StreamReader, number: int, heard: Heard | None) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(65536):
        if heard is not None:
            heard(number, chunk)
        elif len(kept) < OUTPUT_CAP:
            kept += chunk[: OUTPUT_CAP - len(kept)]
    return bytes(kept)
