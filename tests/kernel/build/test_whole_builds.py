"""Dockerfiles built as an agent builds them, and what is left where it is killed meanwhile."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from image.build.parts import StepFailed
from model.build import Typed
from model.errors import NotFound
from tests.support.buildlab import SaidSession, mounts_below
from tests.support.killedbuilds import TEXT
from tests.support.wholebuilds import WholeBuilds, whole_builds

pytestmark = pytest.mark.kernel

MADE = {"b": b"a\n", "c": b"a\n", "d": b"a\na\n"}


@pytest.fixture
async def builds(tmp_path: Path) -> AsyncIterator[WholeBuilds]:
    async with whole_builds(tmp_path) as made:
        yield made
        assert made.lab.left() == []
    assert mounts_below(tmp_path) == []


async def test_image_holds_what_its_steps_wrote_and_nothing_else(builds: WholeBuilds) -> None:
    assert await builds.files(await builds.build(TEXT)) == MADE


async def test_secret_is_in_no_layer_history_or_cache_key_b15(builds: WholeBuilds) -> None:
    text = "FROM busybox:1\nRUN --network=none --mount=type=secret,id=k,env=K cat /run/secrets/k; echo $K\n"
    for value in (b"canary-1", b"canary-2"):
        session = SaidSession({"k": value})
        done = await builds.build(text, session)
        assert (b"canary-1\n" in session.out) is (value == b"canary-1")  # the second comes from the cache
        record = builds.store.find(done.images[0].image)
        assert "canary" not in repr(record)
    found = [
        p for p in (builds.lab.folder / "state").rglob("*") if p.is_file() and b"canary" in p.read_bytes()
    ]
    assert found == []


async def test_cache_of_a_stage_that_changed_begins_anew(builds: WholeBuilds) -> None:
    for content, expected in (("one", b"one\n"), ("two", b"two\n")):
        text = (
            f"FROM busybox:1 AS a\nRUN --network=none mkdir /s && echo {content} > /s/f\n"
            "FROM busybox:1\nRUN --network=none --mount=type=cache,from=a,source=/s,target=/c cat /c/f > /f\n"
        )
        assert (await builds.files(await builds.build(text)))["f"] == expected


async def test_shell_in_a_failed_step_sees_its_files_which_are_thrown_away(builds: WholeBuilds) -> None:
    session = SaidSession()
    session.typed = [Typed(data=b"cat /half; exit\n")]
    with pytest.raises(StepFailed, match=r"Dockerfile:2.*exit code 4"):
        text = "FROM busybox:1\nRUN --network=none echo did > /half; exit 4\n"
        await builds.build(text, session, on_failure="shell")
    assert b"did" in session.out
    assert await builds.files(await builds.build("FROM busybox:1\nRUN --network=none :\n")) == {}


async def test_step_that_cant_start_is_told_with_its_line(builds: WholeBuilds) -> None:
    with pytest.raises(NotFound, match="Dockerfile:3: RUN can't start: the image has no /bin/sh"):
        await builds.build("FROM scratch\nCOPY --from=busybox:1 /etc/passwd /\nRUN --network=none true\n")


class Killed:
    """`tests.support.killedbuilds`, asked build by build."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def build(self, at: int) -> int:
        """Wait status."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"%d\n" % at)
        async with asyncio.timeout(60):
            return int(await self._process.stdout.readline())


async def test_agent_killed_at_any_moment_of_a_build_leaves_nothing_and_the_next_is_right(
    tmp_path: Path,
) -> None:
    parent = f"/flota-test-{secrets.token_hex(4)}"
    async with whole_builds(tmp_path, parent=parent):
        pass  # the base is there, for all that follow
    words = (sys.executable, "-m", "tests.support.killedbuilds", "builds", str(tmp_path), parent)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
    killed, at, status = Killed(process), 0, signal.SIGKILL.value
    while status:
        status = await killed.build(at)
        assert status in (0, signal.SIGKILL)
        async with whole_builds(tmp_path, parent=parent) as builds:
            assert builds.lab.left() == [], at
            assert mounts_below(tmp_path) == [], at
            session = SaidSession()
            done = await builds.build(TEXT, session, names=("out:1",))
            assert await builds.files(done) == MADE, at
            assert builds.lab.left() == [], at
        at += 3
    assert at > 15, "it was never killed"
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
