"""Where a container's cgroup is and what its files say, on cgroup v1, v2 and the hybrid of both.

Invariant: only the cgroups of our own parent are ever changed. A missing file means "not counted here" and
reads as None, never as an error: which controllers a kernel has is a fact of the host (kernel docs:
admin-guide/cgroup-v1, cgroup-v2.rst).
"""

from __future__ import annotations

import os
from collections.abc import Sequence


class CgroupFiles:
    """`root` is where cgroup file systems are mounted; `parent` is the cgroup under which ours live."""

    def __init__(self, root: str = "/sys/fs/cgroup", parent: str = "/flota") -> None:
        self._root = root
        self._parent = "/" + parent.strip("/")
        self.unified = os.path.exists(os.path.join(root, "cgroup.controllers"))

    def path(self, container: str) -> str:
        """The container's `linux.cgroupsPath` (cgroupfs driver)."""
        return f"{self._parent}/{container}"

    def file(self, container: str, controller: str, name: str) -> str:
        """Path of a control file; `controller` only matters on v1."""
        parts = (self._root,) if self.unified else (self._root, controller)
        return os.path.join(*parts, self._parent.strip("/"), container, name)

    def read(self, container: str, controller: str, name: str) -> str | None:
        try:
            with open(self.file(container, controller, name), encoding="ascii") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
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
        below = os.path.join(self._parent.strip("/"), container)
        tops = [self._root] if self.unified else [entry.path for entry in os.scandir(self._root)]
        return [path for path in (os.path.join(top, below) for top in tops) if os.path.isdir(path)]

    def thaw(self, container: str) -> None:
        """On cgroup v1 a frozen process does not even die of SIGKILL; v2 needs nothing."""
        if (self.read(container, "freezer", "freezer.state") or "THAWED\n") != "THAWED\n":
            with open(self.file(container, "freezer", "freezer.state"), "w", encoding="ascii") as file:
                file.write("THAWED")

    def pids(self, container: str) -> Sequence[int]:
        """Every process of the container, its execs included; empty if it is gone."""
        text = self.read(container, "pids", "cgroup.procs") or ""
        return [int(line) for line in text.split()]
