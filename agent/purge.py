"""Removing all that an agent made on this host: containers, namespaces, links, mounts, cgroups, rules.

For `flota down --purge`, when no agent runs. Works from what is there, not from a journal that may be
damaged; what it can't remove it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from agent import hostprocesses
from agent.build.executor import BUILDS
from agent.cgroup import is_unified
from agent.oci.cgroups import PREFIX, is_slice, slice_place
from agent.runtime.base import Runtime
from agent.runtime.conmon import ConmonRuntime
from aio.subprocess import run as command
from image.drivers.mounts import unmount
from model.errors import CommandFailed, FlotaError
from net.reconciler import NetReconciler

PARENT_NOTE = "cgroup-parent"
SLICE_DEADLINE = 60.0
NOT_LOADED = 5
"""What systemctl ends with where a unit is gone already."""


def purge(state: str, run: str, kept: str = "") -> None:
    """Nothing at or below the folder `kept` is unmounted. Raises the first failure after everything was
    tried."""
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    asyncio.run(_purge(Path(state), Path(run), kept))


async def _purge(state: Path, run: Path, kept: str) -> None:
    failures: list[FlotaError] = []
    if run.exists():
        with _told(failures):
            parent = cgroup_parent(run)
            await delete_all(ConmonRuntime(str(run), cgroup_parent=parent), failures)
            if is_slice(parent):
                await remove_slice(parent)
            else:
                remove_cgroups(parent)
        network = NetReconciler(run)
        await network.start()
        try:
            with _told(failures):
                await network.remove_all()
        finally:
            await network.close()
        with _told(failures):
            # last: tunnels' processes, which end with their links, share the cgroup
            await hostprocesses.stop(run)
    for mount in (*mounts_below(state, kept), *mounts_below(run / BUILDS)):
        with _told(failures):
            unmount(mount)
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _told(failures: list[FlotaError]) -> Iterator[None]:
    """What fails in the block holds up nothing after it; it is told at the end."""
    try:
        yield
    except FlotaError as error:
        failures.append(error)
    except OSError as error:
        failures.append(CommandFailed(f"{error.filename or 'purge'}: {error.strerror}"))


async def delete_all(runtime: Runtime, failures: list[FlotaError]) -> None:
    """Every container of a runtime that can be."""
    for container in await runtime.list():
        with _told(failures):
            await runtime.delete(container, force=True)


def cgroup_parent(run: Path) -> str:
    """What the last agent on this run folder had; it leaves a note."""
    try:
        return (run / PARENT_NOTE).read_text().strip()
    except FileNotFoundError:
        return "/flota"


async def remove_slice(name: str, root: str = "/sys/fs/cgroup") -> None:
    """Stop our scopes in it, and it too unless somebody else has units in it: the parent may be a slice of
    the host's own, as system.slice, and what stops that stops the host. Raises CommandFailed."""
    folders = [place for top in _hierarchies(root) if (place := top / slice_place(name)).is_dir()]
    inside = {entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()}
    ours = sorted(entry for entry in inside if entry.startswith(f"{PREFIX}-") and entry.endswith(".scope"))
    alone = bool(folders) and len(ours) == len(inside)
    units = [*ours, *([name] if alone else [])]
    if units:
        done = await command(["systemctl", "stop", "--", *units], deadline=SLICE_DEADLINE)
        if done.code != NOT_LOADED:
            done.check()


def _hierarchies(root: str) -> list[Path]:
    return [Path(root)] if is_unified(root) else [p for p in Path(root).iterdir() if p.is_dir()]


def remove_cgroups(parent: str, root: str = "/sys/fs/cgroup") -> None:
    """The empty cgroups of our parent, leaves first, in every hierarchy. The top is nobody's parent: what is
    below it is others', too."""
    if not parent.strip("/"):
        return
    for hierarchy in _hierarchies(root):
        base = hierarchy / parent.strip("/")
        if base.is_dir():
            for path, _, _ in os.walk(base, topdown=False):
                os.rmdir(path)


def mounts_below(folder: Path, kept: str = "", table: str = "/proc/self/mountinfo") -> list[str]:
    """Mount points below a folder, deepest first (proc(5), mountinfo), but for those of `kept`."""
    with open(table) as file:
        points = [line.split()[4].encode().decode("unicode_escape") for line in file]
    ours = [p for p in points if p.startswith(f"{folder}/")]
    if kept:
        ours = [p for p in ours if not f"{p}/".startswith(f"{kept}/")]
    return sorted(ours, key=len, reverse=True)
