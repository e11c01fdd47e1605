"""An agent killed while a RUN is at it: the next one clears what is left, and builds."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from pathlib import Path

import pytest

from agent.purge import PARENT_NOTE
from image.dockerfile.instruction import Mount
from image.drivers.mounts import unmount
from tests.support.buildlab import BuildLab, build_lab, mounts_below
from tests.support.killedbuilds import SECRET

pytestmark = pytest.mark.kernel


def holders(parent: str) -> list[int]:
    """Processes in cgroups below that one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if f"{parent}/" in path.read_text():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("at", ["said", *map(str, range(8))])
async def test_agent_killed_while_a_step_is_at_work_leaves_nothing_to_the_next(
    tmp_path: Path, at: str
) -> None:
    parent = f"/flota-test-{secrets.token_hex(4)}"
    words = (sys.executable, "-m", "tests.support.killedbuilds", "step", str(tmp_path), parent, at)
    process = await asyncio.create_subprocess_exec(*words)
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL
    if at == "said":
        assert holders(parent), "the step's processes do not end with the agent"
        assert any(SECRET in p.read_bytes() for p in tmp_path.glob("run/build/*/secrets/*"))
    for place in mounts_below(tmp_path):
        if "/stage-" in place:  # snapshots are others' to sweep
            unmount(place)
    async with build_lab(tmp_path, parent=parent) as lab:
        assert lab.left() == []
        assert holders(parent) == []
        assert mounts_below(tmp_path) == []
        assert not list(tmp_path.glob("run/build/*"))
        await _builds(lab)


async def test_purge_after_an_agent_was_killed_leaves_nothing(tmp_path: Path) -> None:
    parent = f"/flota-test-{secrets.token_hex(4)}"
    words = (sys.executable, "-m", "tests.support.killedbuilds", "step", str(tmp_path), parent, "said")
    process = await asyncio.create_subprocess_exec(*words)
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL
    (tmp_path / "run" / PARENT_NOTE).write_text(parent)
    purged = f"from agent.purge import purge; purge({str(tmp_path / 'state')!r}, {str(tmp_path / 'run')!r})"
    process = await asyncio.create_subprocess_exec("unshare", "-n", sys.executable, "-c", purged)
    async with asyncio.timeout(60):
        assert await process.wait() == 0
    for place in mounts_below(tmp_path):
        assert "/stage-" in place  # of the test
        unmount(place)
    assert holders(parent) == []
    assert not [path for path in Path("/sys/fs/cgroup").glob(f"*{parent}") if path.exists()]


async def _builds(lab: BuildLab) -> None:
    code, said = await lab.run("echo well; ls /cache", mounts=[Mount(kind="cache", target="/cache")])
    assert (code, said.out) == (0, b"well\n")
    assert lab.left() == []
