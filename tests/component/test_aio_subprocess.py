"""Programs are always reaped, within their deadline, whoever cancels."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from aio.subprocess import OUTPUT_CAP, run
from model.errors import CommandFailed, DeadlineExceeded
from tests.support.waiting import until


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def test_a_program_gives_its_output_and_exit_code() -> None:
    done = await run(["sh", "-c", "cat; echo oops >&2; exit 3"], deadline=10, stdin=b"hello")
    assert (done.code, done.stdout, done.stderr) == (3, b"hello", b"oops\n")
    with pytest.raises(CommandFailed, match="sh failed: oops"):
        done.check()


async def test_a_missing_program_is_named() -> None:
    with pytest.raises(CommandFailed, match="cannot run /no/such/program"):
        await run(["/no/such/program"], deadline=1)


async def test_output_beyond_the_cap_is_dropped_and_the_program_ends() -> None:
    done = await run(["head", "-c", str(3 * OUTPUT_CAP), "/dev/zero"], deadline=10)
    assert done.code == 0 and len(done.stdout) == OUTPUT_CAP


async def test_a_program_past_its_deadline_is_killed_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(DeadlineExceeded, match="did not end within"):
        await run(["sh", "-c", f"sleep 100 & echo $! > {pid_file}; wait"], deadline=2.0)
    pid = int(pid_file.read_text())
    await until(lambda: not alive(pid), deadline=5)


async def test_cancelling_kills_and_reaps_the_program(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(run(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 100"], deadline=60))
    await until(lambda: pid_file.exists() and pid_file.read_text().strip(), deadline=5)
    pid = int(pid_file.read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)
