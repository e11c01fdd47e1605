"""A container's cgroup and what its files say, on cgroup v1, v2 and the hybrid of both, by either driver.

Invariant: only the cgroups of our own parent are ever changed. A missing file means "not counted here" and
reads as None, never as an error: which controllers a kernel has is a fact of the host (kernel docs:
admin-guide/cgroup-v1, cgroup-v2.rst).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from agent.oci import cgroups

ROOT = "/sys/fs/cgroup"
NEEDED = ("cpu", "memory", "pids")
"""Controllers of v2 without which limits can't be kept."""


def is_unified(root: str = ROOT) -> bool:
    return os.path.exists(os.path.join(root, "cgroup.controllers"))


class CgroupFiles:
    """`root` is where cgroup file systems are mounted; `parent` the path or slice under which ours live, and
    `former` those where containers of an earlier start may still be."""

    def __init__(self, root: str = ROOT, parent: str = "/flota", former: Sequence[str] = ()) -> None:
        self._root = root
        self.parent = parent
        self._parents = (parent, *(other for other in former if other != parent))
        self.unified = is_unified(root)

    def path(self, container: str) -> str:
        """The container's `linux.cgroupsPath`."""
        return cgroups.oci_path(self.parent, container)

    def file(self, container: str, controller: str, name: str) -> str:
        """Path of a control file; `controller` only matters on v1."""
        top = self._root if self.unified else os.path.join(self._root, controller)
        places = [os.path.join(top, cgroups.place(parent, container)) for parent in self._parents]
        found = next((path for path in places[1:] if os.path.isdir(path)), places[0])
        return os.path.join(found, name)

    def read(self, container: str, controller: str, name: str) -> str | None:
        try:
            with open(self.file(container, controller, name), encoding="ascii") as file:
                return file.read()
        except OSError:
            return None

    def number(self, container: str, controller: str, name: str) -> int | None:
        """The file's only number; None if absent or `max`."""
        text = (self.read(container, controller, name) or "").strip()
        return int(text) if text.isdecimal() else None

    def table(self, container: str, controller: str, name: str) -> dict[str, int]:
        """A flat keyed file, `key value` per line; empty if absent."""
        pairs = (line.split() for line in (self.read(container, controller, name) or "").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

    def leaves(self, container: str) -> list[str]:
        """The container's directories, one per v1 hierarchy that has it."""
        tops = [self._root] if self.unified else [entry.path for entry in os.scandir(self._root)]
        places = [cgroups.place(parent, container) for parent in self._parents]
        return [p for p in (os.path.join(top, place) for top in tops for place in places) if os.path.isdir(p)]

    def thaw(self, container: str) -> None:
        """On cgroup v1 a frozen process does not even die of SIGKILL; v2 needs nothing."""
        if self.unified:
            return
        if (self.read(container, "freezer", "freezer.state") or "THAWED\n") != "THAWED\n":
            with open(self.file(container, "freezer", "freezer.state"), "w", encoding="ascii") as file:
                file.write("THAWED")

    def pids(self, container: str) -> Sequence[int]:
        """Every process of the container, its execs and those in cgroups of its own included; empty if it is
        gone."""
        top = os.path.dirname(self.file(container, "pids", "cgroup.procs"))
        return [pid for folder, _, _ in os.walk(top) for pid in members(folder)]


def members(folder: str) -> Iterator[int]:
    """Processes in this one cgroup."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as file:
        for line in file:
            yield int(line)


def provide(parent: str, root: str = ROOT) -> list[str]:
    """Have containers under `parent` counted and limited. On v2 each cgroup from the top on passes its
    controllers on, which systemd does for its own slices. Returns what can't be limited here, in words."""
    if not is_unified(root):
        return []
    folder = root
    if not cgroups.is_slice(parent):
        for part in parent.strip("/").split("/"):
            _pass_on(folder)
            folder = os.path.join(folder, part)
            os.makedirs(folder, exist_ok=True)
        _pass_on(folder)
    given = _words(os.path.join(folder, "cgroup.controllers"))
    lacking = [name for name in NEEDED if name not in given]
    if not lacking:
        return []
    return [f"containers' {', '.join(lacking)} can't be limited: {folder} has no such cgroup controller"]


def _pass_on(folder: str) -> None:
    """One by one: a controller that can't be had holds up no other."""
    path = os.path.join(folder, "cgroup.subtree_control")
    had = _words(path)
    for name in _words(os.path.join(folder, "cgroup.controllers")):
        if name not in had:
            with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
                file.write(f"+{name}")


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []
