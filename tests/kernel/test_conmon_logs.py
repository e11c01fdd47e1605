"""Logs of real containers, while they are rotated under a busy writer."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from agent.logs import LogQuery, LogReader
from agent.rotation import LogRotator
from agent.stats import sample, top
from model.spec import ContainerSpec, LogOptions
from tests.support.containers import Lab
from tests.support.waiting import until

pytestmark = pytest.mark.kernel
ROTATED = 3
WRITER = """\
trap 'stop=1' USR1; i=0
while [ -z "$stop" ]; do echo line $i; i=$((i+1)); done
echo "$i in all"
"""


async def test_follow_busy_container_rotated_by_size_loses_no_line(lab: Lab) -> None:
    reader, rotator = LogReader(), LogRotator(lab.runtime.reopen_log, pause=0.02)
    bundle, created = await lab.create(ContainerSpec(image="x", args=("sh", "-c", WRITER)))
    rotator.add(bundle.log_path, bundle.directory, LogOptions(max_size=100_000, max_files=1000))
    ended = False
    got: list[bytes] = []

    async def follow() -> None:
        async for _, text in reader.follow(bundle.log_path, LogQuery(), lambda: ended):
            got.append(text)

    def rotations() -> bool:
        return len(list(Path(bundle.directory).glob("container.log.*"))) >= ROTATED

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        rotating = group.create_task(rotator.run())
        following = group.create_task(follow())
        await lab.runtime.start(bundle.id)
        await until(rotations, deadline=40, what=f"{ROTATED} rotations of the log")
        await lab.runtime.signal(bundle.id, signal.SIGUSR1)
        assert (await lab.exit_of(bundle, created, deadline=20)).code == 0
        ended = True
        reader.wake(bundle.log_path)
        await following
        rotating.cancel()
    reader.close()
    *lines, last = b"".join(got).splitlines(keepends=True)
    assert b"".join(lines) == b"".join(b"line %d\n" % n for n in range(len(lines)))
    assert last == b"%d in all\n" % len(lines)


async def test_usage_of_busy_container_counts(lab: Lab) -> None:
    words = ("sh", "-c", "dd if=/dev/zero of=/dev/null bs=1M count=2000 2>/dev/null; echo done; sleep 100")
    bundle, created = await lab.create(ContainerSpec(image="x", args=words))
    reader = LogReader()
    await lab.runtime.start(bundle.id)
    async with asyncio.timeout(30):
        async for _, text in reader.follow(bundle.log_path, LogQuery(), lambda: False):
            assert text == b"done\n"
            break
    reader.close()
    seen = sample(lab.runtime.cgroups, bundle.id, name="busy", pid=created.pid, at=1.0, host_memory=8 << 30)
    assert seen is not None
    assert seen.cpu_ns > 10_000_000
    assert 0 < seen.memory < 64 << 20
    assert seen.memory_limit == 8 << 30
    assert seen.pids >= 1

    async def last_process() -> str:
        return top(await lab.runtime.pids(bundle.id), now=2e9).rows[-1][-1]

    async def sleeps() -> bool:
        return await last_process() == "sleep 100"

    await until(sleeps, deadline=5, what="the shell to go on to sleep")
    await lab.runtime.delete(bundle.id)
    assert sample(lab.runtime.cgroups, bundle.id, name="", pid=created.pid, at=1.0, host_memory=1) is None
