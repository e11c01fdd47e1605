"""Directories on their way out: gone from sight at once, deleted from disk by and by.

Deleting a layer of many files takes seconds, which neither `rmi` nor a start of the agent should wait for.
Invariant: what is in the trash folder belongs to nobody; what a crash left there goes after the next start.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from aio.deletion import delete, deletion
from aio.supervisor import Supervisor, in_thread


class Trash:
    """`folder` is on the same file system as what is thrown away; `delete` is done step by step."""

    def __init__(self, folder: Path, delete: Callable[[Path], Iterator[None]] | None = None) -> None:
        self._folder = folder
        self._delete = delete or deletion
        self._stop = threading.Event()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._numbers = itertools.count(1)

    def open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        last = max((int(name) for name in os.listdir(self._folder) if name.isdigit()), default=0)
        self._numbers = itertools.count(last + 1)
        self._filled.set()

    def start(self, supervisor: Supervisor) -> None:
        """Begin deleting, also what is left from before."""
        supervisor.start("trash", self._run, restart=True)

    def stop(self) -> None:
        """Deleting ends after the present file; the rest keeps until the next start."""
        self._stop.set()

    def put(self, path: Path) -> None:
        """Throw away a directory; no error if it does not exist. Any thread may call it."""
        target = self._folder / str(next(self._numbers))  # one step, so that two threads never share a number
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return

    def put_all(self, folder: Path) -> None:
        """Throw away what is in it. The directory stays: on a full disk none can be made anew."""
        for path in list(folder.iterdir()):
            self.put(path)

    def wake(self) -> None:
        """Something was put in; from the event loop's thread."""
        self._idle.clear()
        self._filled.set()

    async def emptied(self) -> None:
        """What was put in before the last `wake` is deleted, as far as it can be."""
        await self._idle.wait()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            failure = await in_thread(self._empty)
            if not self._filled.is_set():
                self._idle.set()
            if failure is not None:
                self._filled.set()  # tried again after a while
                raise failure

    def _empty(self) -> OSError | None:
        """The first failure: what can't be deleted (chattr +i) holds up neither the rest nor who waits."""
        failure = None
        for name in sorted(os.listdir(self._folder)):
            try:
                for _ in self._delete(self._folder / name):
                    if self._stop.is_set():
                        return failure
            except OSError as error:
                failure = failure or error
        return failure


def deletion_in(folder: int, name: bytes) -> None:
    """Delete what an open directory has by that name, nothing through a link. Raises OSError."""
    delete(name, folder)
