"""Removing all that an agent made on this host: containers, namespaces, links, mounts, cgroups, rules.

For `flota down --purge`, when no agent runs. Works from what is there, not from a journal that may be
damaged; what it can't remove it says.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from agent import hostprocesses
from agent.cgroup import CgroupFiles
from agent.runtime.conmon import ConmonRuntime
from image.drivers.mounts import unmount
from model.errors import FlotaError
from net.reconciler import NetReconciler


def purge(state: str, run: str) -> None:
    """Raises the first failure after everything was tried."""
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(_purge(Path(state), Path(run)))


async def _purge(state: Path, run: Path) -> None:
    failures: list[FlotaError] = []
    if run.exists():
        try:
            await _containers(run)
        except FlotaError as error:
            failures.append(error)
        network = NetReconciler(run)
        await network.start()
        try:
            await network.remove_all()
        except FlotaError as error:
            failures.append(error)
        finally:
            await network.close()
        try:
            await hostprocesses.stop(
                run
            )  # last: tunnels' processes, which end with their links, share the cgroup
        except FlotaError as error:
            failures.append(error)
    for mount in _mounts_below(state):
        unmount(mount)
    if failures:
        raise failures[0]


async def _containers(run: Path) -> None:
    parent = cgroup_parent(run)
    runtime = ConmonRuntime(str(run), cgroup_parent=parent)
    for container in await runtime.list():
        await runtime.delete(container, force=True)
    remove_cgroups(parent)


def cgroup_parent(run: Path) -> str:
    """What the last agent on this run folder was started with; it leaves a note."""
    try:
        return (run / "cgroup-parent").read_text().strip()
    except FileNotFoundError:
        return "/flota"


def remove_cgroups(parent: str, root: str = "/sys/fs/cgroup") -> None:
    """The empty cgroups of our parent, leaves first, in every hierarchy."""
    unified = CgroupFiles(root, parent).unified
    for hierarchy in [Path(root)] if unified else [p for p in Path(root).iterdir() if p.is_dir()]:
        base = hierarchy / parent.strip("/")
        if base.is_dir():
            for path, _, _ in os.walk(base, topdown=False):
                os.rmdir(path)


def _mounts_below(folder: Path) -> list[str]:
    """Mount points below a folder, deepest first (proc(5), mountinfo)."""
    with open("/proc/self/mountinfo") as file:
        points = [line.split()[4].encode().decode("unicode_escape") for line in file]
    return sorted((p for p in points if p.startswith(f"{folder}/")), key=len, reverse=True)
