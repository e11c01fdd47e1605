"""conmon and runc that die, hang, lie or are absent."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from agent.runtime.base import State
from agent.runtime.conmon import ConmonRuntime, Deadlines
from model.errors import CommandFailed, DeadlineExceeded, FlotaError, Unsupported
from model.spec import ContainerSpec
from tests.support.containers import Lab
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
SLEEP = ContainerSpec(image="x", args=("sleep", "1000"))


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def instead(lab: Lab, tmp_path: Path, patience: float = 20.0, **words: str) -> None:
    deadlines = Deadlines(create=patience, command=patience, start=patience)
    lab.runtime = ConmonRuntime(str(tmp_path / "run"), cgroup_parent=lab.parent, deadlines=deadlines, **words)


async def test_conmon_killed_exit_is_unknown_and_delete_cleans(lab: Lab) -> None:
    bundle, created = await lab.create(SLEEP)
    await lab.runtime.start(bundle.id)
    os.kill(created.conmon_pid, signal.SIGKILL)
    assert (await lab.exit_of(bundle, created)).code is None
    assert await lab.runtime.state(bundle.id) is State.RUNNING
    await lab.runtime.delete(bundle.id)
    assert await lab.runtime.state(bundle.id) is None
    await until(lambda: not os.path.exists(f"/proc/{created.pid}"), deadline=5)


async def test_first_process_killed_from_the_host_is_137(lab: Lab) -> None:
    bundle, created = await lab.create(SLEEP)
    await lab.runtime.start(bundle.id)
    os.kill(created.pid, signal.SIGKILL)
    assert (await lab.exit_of(bundle, created)).code == 137


async def test_conmon_frozen_others_go_on(lab: Lab) -> None:
    _, created = await lab.create(SLEEP)
    os.kill(created.conmon_pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            ended, text = await lab.run("echo fine")
        assert (ended.code, text) == (0, "fine\n")
    finally:
        os.kill(created.conmon_pid, signal.SIGCONT)


async def test_held_process_killed_before_start_is_said(lab: Lab) -> None:
    bundle, created = await lab.create(SLEEP)
    os.kill(created.pid, signal.SIGKILL)
    assert (await lab.exit_of(bundle, created)).code == 137
    with pytest.raises(CommandFailed):
        await lab.runtime.start(bundle.id)


@pytest.mark.parametrize("moment", [0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04])
async def test_create_cancelled_at_any_moment_leaves_nothing(lab: Lab, moment: float) -> None:
    before = set(_supervisors(lab))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(moment):
            await lab.create(SLEEP)
            await asyncio.sleep(10)
    for ident in await lab.runtime.list():
        await lab.runtime.delete(ident)
    assert list(await lab.runtime.list()) == []
    await until(lambda: set(_supervisors(lab)) == before, deadline=5, what="no process of it")


def _supervisors(lab: Lab) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(lab.directory).encode() in words:
                found.append(entry)
    return found


async def test_conmon_absent_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="Install conmon-none"):
        ConmonRuntime(str(tmp_path), conmon="conmon-none")


async def test_runc_hangs_create_gives_up_in_time(lab: Lab, tmp_path: Path) -> None:
    instead(lab, tmp_path, 2.0, runc=script(tmp_path / "hang", "exec sleep 60"))
    with pytest.raises(DeadlineExceeded, match="within 2 s"):
        await lab.create(SLEEP)
    await until(lambda: not _supervisors(lab), deadline=5, what="conmon and runc are gone")
    lab.made.clear()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo 'the disk is on fire' >&2; exit 1", "the disk is on fire"),
        ("kill -9 $$", "failed"),
        ("exit 0", "failed"),
    ],
)
async def test_runc_fails_or_lies_create_says_so(lab: Lab, tmp_path: Path, text: str, said: str) -> None:
    instead(lab, tmp_path, runc=script(tmp_path / "bad", text))
    with pytest.raises(FlotaError, match=said):
        await lab.create(SLEEP)
    lab.made.clear()


@pytest.mark.parametrize("text", ["echo junk >&2; exit 3", "exit 0", "kill -9 $$", "exec sleep 60"])
async def test_conmon_fails_or_hangs_create_says_so(lab: Lab, tmp_path: Path, text: str) -> None:
    instead(lab, tmp_path, 2.0, conmon=script(tmp_path / "bad", text))
    with pytest.raises(FlotaError, match=r"conmon failed|within 2 s"):
        await lab.create(SLEEP)
    await until(lambda: not _supervisors(lab), deadline=5)


async def test_no_descriptor_is_left_after_many_lives(lab: Lab) -> None:
    async def life() -> None:
        bundle, created = await lab.create(SLEEP)
        await lab.runtime.start(bundle.id)
        handle = await lab.runtime.attach(bundle.directory, stdin=False)
        await handle.close()
        await lab.runtime.delete(bundle.id)
        await lab.exit_of(bundle, created)

    await life()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await life()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before, deadline=5, what="all are closed")


async def test_container_killed_while_runc_copied_itself_is_removed_whole(lab: Lab) -> None:
    """The copy is a bind mount of the program for a moment, which `runc delete` does not take away."""
    ident = secrets.token_hex(32)
    folder = Path(lab.runtime.programs.root) / ident
    folder.mkdir()
    copy = folder / "runc.Xy12Zz"
    copy.touch()
    await asyncio.to_thread(subprocess.run, ["mount", "--bind", "/bin/busybox", str(copy)], check=True)
    await lab.runtime.delete(ident)
    assert not folder.exists()
    assert str(copy) not in Path("/proc/self/mountinfo").read_text()
    assert Path("/bin/busybox").stat().st_size
