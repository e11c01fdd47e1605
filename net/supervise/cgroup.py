"""A cgroup of its own for the processes that outlive the agent: whoever stops the agent's service by killing
its cgroup does not meet them.

All hierarchies of cgroup v1, the one of v2, and both where a host has both (kernel docs:
admin-guide/cgroup-v1, cgroup-v2.rst).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from model.errors import CommandFailed

ROOT = "/sys/fs/cgroup"
SHARES, WEIGHT = 8192, 800
"""Eight times what a new cgroup has (v1, v2)."""


def join(path: str, root: str = ROOT, *, pid: int = 0) -> list[str]:
    """Move this process (or that of `pid`), and with it whatever it starts from now on. Returns what could
    not be done, in words: there it stays where it was started."""
    failed = []
    for hierarchy in _hierarchies(root):
        folder = os.path.join(hierarchy, path.strip("/"))
        try:
            os.makedirs(folder, exist_ok=True)
            _inherit_cpuset(folder)
            with open(os.path.join(folder, "cgroup.procs"), "w") as file:
                file.write(str(pid or os.getpid()))
        except OSError as error:
            failed.append(f"{folder} cannot be joined: {error.strerror}")
    return failed


def prefer(path: str, root: str = ROOT) -> None:
    """Let a cgroup have several times the processor of any other where that is short: what it does is done
    for all containers, whose own kernel's work would come before theirs too. Nothing where that can't be
    said."""
    for hierarchy in _hierarchies(root):
        for name, weight in (("cpu.shares", SHARES), ("cpu.weight", WEIGHT)):
            place = os.path.join(hierarchy, path.strip("/"), name)
            if os.path.exists(place):
                with contextlib.suppress(OSError), open(place, "w") as file:
                    file.write(str(weight))


def remove(path: str, root: str = ROOT) -> None:
    """When nobody is in it any more. Idempotent. Raises CommandFailed."""
    for hierarchy in _hierarchies(root):
        folder = os.path.join(hierarchy, path.strip("/"))
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            hint = f"See who is in {folder}/cgroup.procs"
            raise CommandFailed(f"{folder} cannot be removed: {error.strerror}", hint=hint) from error


def _hierarchies(root: str) -> Iterator[str]:
    """Each once: co-mounted controllers have symbolic links beside them."""
    if os.path.exists(os.path.join(root, "cgroup.procs")):
        yield root
        return
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir(follow_symlinks=False) and os.path.exists(f"{entry.path}/cgroup.procs"):
                yield entry.path


def _inherit_cpuset(folder: str) -> None:
    """A new cpuset of v1 has no processor and no memory, and takes nobody in."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        path = os.path.join(folder, name)
        above = os.path.join(os.path.dirname(folder), name)
        if os.path.exists(path) and os.path.exists(above) and not os.path.exists(f"{folder}/cgroup.type"):
            with open(path, "r+") as own, open(above) as parents:
                if not own.read().strip():
                    own.write(parents.read())
