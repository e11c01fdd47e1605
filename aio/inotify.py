"""inotify(7) through libc: bells for changed files, without polling.

Instances are scarce (128 per user by default), so there is one per process and purpose, shared by all who
wait. Invariant: an event means "look", and carries no fact; lost or merged events cost nothing, because
whoever is woken reads the file's state.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
_IN_Q_OVERFLOW, _IN_IGNORED = 0x4000, 0x8000
_MASK = IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
_EVENT = struct.Struct("iIII")
_RETRY = 0.25


class DirectoryBells:
    """Rings when something in a directory is written, made, renamed or deleted.

    `pause` seconds pass between two looks at the kernel's queue: 0 for readers who wait for a line, more for
    watchers of sizes. Where the kernel grants no inotify, every bell rings each 0.25 s instead.
    """

    def __init__(self, *, pause: float = 0.0) -> None:
        self._pause = pause
        self._bells: dict[str, list[Callable[[], None]]] = {}
        self._paths: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._fd = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._readable)

    @property
    def polling(self) -> bool:
        """The kernel refused a watch or an instance; bells ring by the clock."""
        return any(path not in self._numbers for path in self._bells)

    def add(self, directory: str, ring: Callable[[], None]) -> Callable[[], None]:
        """Call `ring` after changes. Returns what ends it."""
        self._bells.setdefault(directory, []).append(ring)
        if directory not in self._numbers and self._fd >= 0:
            number = _LIBC.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
            if number >= 0:
                self._numbers[directory] = number
                self._paths[number] = directory
        if self.polling and self._timer is None:
            self._schedule()
        return lambda: self._remove(directory, ring)

    def ring(self, directory: str) -> None:
        """As if something had changed there."""
        for bell in tuple(self._bells.get(directory, ())):
            bell()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._bells.clear()

    def _remove(self, directory: str, ring: Callable[[], None]) -> None:
        bells = self._bells.get(directory, [])
        if ring in bells:
            bells.remove(ring)
        if not bells and self._bells.pop(directory, None) is not None:
            number = self._numbers.pop(directory, None)
            if number is not None and self._fd >= 0:
                self._paths.pop(number, None)
                _LIBC.inotify_rm_watch(self._fd, number)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        changed: set[str] = set()
        at = 0
        while at + _EVENT.size <= len(data):
            number, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            if mask & _IN_Q_OVERFLOW:
                changed.update(self._bells)
            elif not mask & _IN_IGNORED and number in self._paths:
                changed.add(self._paths[number])
        for directory in changed:
            self.ring(directory)
        if self._pause:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.call_later(self._pause, self._listen)

    def _listen(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _schedule(self) -> None:
        delay = max(_RETRY, self._pause)
        self._timer = asyncio.get_running_loop().call_later(delay, self._poll)

    def _poll(self) -> None:
        self._timer = None
        for directory in [path for path in self._bells if path not in self._numbers]:
            self.ring(directory)
        if self.polling:
            self._schedule()
