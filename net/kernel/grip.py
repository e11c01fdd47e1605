"""The namespaces we hold, also when somebody takes their mounts away.

A container's namespace is held by a mount on a file, by which all who work in it find it. Processes in it
keep it alive without that mount, so its path is brought back by one of them. Invariants: what is held again
is the namespace that was, by the kernel's cookie, which is never used twice; nothing here keeps one alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Sequence
from pathlib import Path

from net.kernel import netns

MOUNTS = "/proc/self/mountinfo"
GATHER = 0.1
"""Seconds in which more mounts may change: a container's start is several."""


class Grip:
    def __init__(self) -> None:
        self._held: dict[Path, tuple[int, int]] = {}
        """Inode, by which a namespace is found, and cookie, by which it is known."""

    def keep(self, path: Path, cookie: int) -> None:
        """From now on. `cookie` 0: this kernel has none (before Linux 5.14), and what is lost is lost."""
        if cookie:
            self._held[path] = path.stat().st_ino, cookie

    def let_go(self, path: Path) -> None:
        self._held.pop(path, None)

    def lost(self) -> list[Path]:
        """On any thread: files of each are looked at."""
        return [path for path in list(self._held) if not netns.is_held(path)]

    def again(self) -> Sequence[Path]:
        """Hold by their paths what is lost and has a process; which. On any thread, while nobody else lets go
        of any."""
        lost = {self._held[path][0]: path for path in self.lost()}
        found: list[Path] = []
        for pid in filter(str.isdigit, os.listdir("/proc") if lost else ()):
            place = Path(f"/proc/{pid}/ns/net")
            with contextlib.suppress(OSError):
                path = lost.get(inode := place.stat().st_ino)
                if path is not None and netns.cookie_of(place) == self._held[path][1]:
                    netns.hold(path, place)
                    found.append(lost.pop(inode))
        return found


class MountBell:
    """Rings soon after the mounts of this process's mount namespace changed and `tells`, on a thread.

    The kernel tells of it as an exceptional condition of mountinfo (proc_pid_mountinfo(5)), which asyncio
    does not wait for: an epoll of its own does, itself readable then."""

    def __init__(self, tells: Callable[[], bool], ring: Callable[[], None]) -> None:
        self._tells, self._ring = tells, ring
        self._file = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._file, select.EPOLLPRI)
        self._due: asyncio.TimerHandle | None = None
        asyncio.get_running_loop().add_reader(self._poll.fileno(), self._changed)

    def _changed(self) -> None:
        with contextlib.suppress(InterruptedError):
            self._poll.poll(0)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(GATHER, self._look)

    def _look(self) -> None:
        self._due = None
        asyncio.get_running_loop().run_in_executor(None, self._tells).add_done_callback(self._told)

    def _told(self, looked: asyncio.Future[bool]) -> None:
        if not looked.cancelled() and looked.result():
            self._ring()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        if self._due is not None:
            self._due.cancel()
        self._poll.close()
        os.close(self._file)
