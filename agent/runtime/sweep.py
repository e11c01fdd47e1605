"""What a runc that was killed leaves in the kernel: a cgroup without a container, perhaps with processes.

runc makes the cgroup before it writes its state, so there is a moment in which only the cgroup tells of the
attempt. Invariant: touches nothing but the one container's own cgroup.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from agent.cgroup import CgroupFiles, members
from model.errors import DeadlineExceeded

_PAUSE = 0.005
"""Seconds. The kernel gives no bell for "the last process has left" on cgroup v1."""


async def sweep(files: CgroupFiles, container: str, *, deadline: float) -> None:
    """Kill what runs in the container's cgroup and remove it; at once when there is none.
    Raises DeadlineExceeded."""
    leaves = files.leaves(container)
    try:
        async with asyncio.timeout(deadline):
            while leaves := [leaf for leaf in leaves if not _removed(leaf)]:  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the cgroup of container {container[:12]} is still in use after {deadline:g} s",
            hint="A process of it may hang in the kernel, for example on a dead network file system",
        ) from error


def _removed(leaf: str) -> bool:
    """With those that the container made in it."""
    try:
        for folder, _, _ in os.walk(leaf, topdown=False):
            os.rmdir(folder)
        return True
    except FileNotFoundError:
        return not os.path.isdir(leaf)
    except OSError:
        _kill_all(leaf)
        return False


def _kill_all(leaf: str) -> None:
    """All at once where the kernel can (cgroup v2 from Linux 5.14 on): nobody can fork away."""
    switch = os.path.join(leaf, "cgroup.kill")
    if os.path.exists(switch):
        with contextlib.suppress(OSError), open(switch, "w", encoding="ascii") as file:
            file.write("1")
        return
    for folder, _, _ in os.walk(leaf):
        for pid in members(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
