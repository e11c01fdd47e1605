"""Keeping one process running that outlives whoever started it.

It is found again by its pid file, replaced when it is of another version, started again when it died, and
ended when it takes no notice of a new state. Nothing runs before there is a state for it. Invariant: at most
one per folder (it holds a lock there); a keeper that ends leaves it running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

from aio.backoff import delay
from aio.inotify import DirectoryBells
from aio.mailbox import Bell
from aio.spawn import readable, spawn
from model.codec import encode_json
from model.errors import FlotaError
from net.supervise.files import SERVED, STATE, claim_of, living, mark_of, read
from net.supervise.state import Child

log = logging.getLogger("flota.net")

PATIENCE, PAUSE = 10.0, 0.1
"""Seconds in which a service manager starts what it keeps, and between looks for it."""
SETTLED = 60.0
"""Seconds after which a death is the first again."""
STOP_DEADLINE = 5.0
CHECK, STUCK = 5.0, 2
"""Seconds between looks without a bell; after so many of them without a word about a new state it hangs."""
MOST_LOG = 1 << 20


class Keeper:
    """`changed` is called when `trouble` is another than before."""

    def __init__(
        self,
        name: str,
        child: Child,
        bells: DirectoryBells,
        changed: Callable[[], None] = lambda: None,
        *,
        check: float = CHECK,
    ) -> None:
        self._check = check
        self._name, self._child, self._bells, self._changed = name, child, bells, changed
        self._pid = 0
        self.trouble = ""

    async def run(self) -> None:
        """Until cancelled; what runs then runs on."""
        loop, deaths = asyncio.get_running_loop(), 0
        await self._needed()
        while True:
            pidfd = await self._adopted()
            if pidfd is None:
                pidfd = self._started() if self._child.argv else await self._appeared()
            began = loop.time()
            if pidfd is not None:
                try:
                    await self._watch(pidfd)
                finally:
                    os.close(pidfd)
                reap(self._pid)
                self._tell(f"the {self._name} ended and is started again, see {self._child.log}")
            deaths = 1 if loop.time() - began > SETTLED else deaths + 1
            await asyncio.sleep(delay(deaths, first=0.05, limit=10.0))

    async def _needed(self) -> None:
        os.makedirs(self._child.folder, mode=0o750, exist_ok=True)
        bell = Bell()
        stop = self._bells.add(self._child.folder, bell.ring)
        try:
            while not os.path.exists(os.path.join(self._child.folder, STATE)):
                await bell.wait()
        finally:
            stop()

    async def _adopted(self) -> int | None:
        """A pidfd of the one that runs, if it is of the right version."""
        folder = self._child.folder
        pidfd, claim = living(folder), claim_of(folder)
        if pidfd is None:
            return None
        if claim.version == self._child.version:
            self._pid = claim.pid
            log.info("the %s with pid %d goes on", self._name, claim.pid)
            return pidfd
        os.close(pidfd)
        log.info("the %s with pid %d is of version %s and replaced", self._name, claim.pid, claim.version)
        await stop(folder)
        return None

    async def _appeared(self) -> int | None:
        """A pidfd of one that somebody else starts, whatever its version: the next round sees to that."""
        loop, folder = asyncio.get_running_loop(), self._child.folder
        end = loop.time() + PATIENCE
        while (pidfd := living(folder)) is None and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(PAUSE)
        if pidfd is None:
            self._tell(f"the {self._name} does not run: {self._child.log} says why")
        elif claim_of(folder).version != self._child.version:
            os.close(pidfd)
            return None
        return pidfd

    def _started(self) -> int | None:
        child = self._child
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(child.folder, SERVED))  # what a dead one said
        try:
            os.makedirs(os.path.dirname(child.log), mode=0o711, exist_ok=True)
            with open(child.log, "ab") as output, open(os.devnull, "rb") as nothing:
                if output.tell() > MOST_LOG:
                    output.truncate(0)
                words = {"stdin": nothing.fileno(), "stdout": output.fileno(), "stderr": output.fileno()}
                self._pid = spawn(child.argv, os.environ, fds={}, **words).let_go()
            pidfd = os.pidfd_open(self._pid)
        except (FlotaError, OSError) as error:
            self._tell(f"the {self._name} cannot be started: {error}")
            return None
        log.info("started the %s with pid %d", self._name, self._pid)
        return pidfd

    async def _watch(self, pidfd: int) -> None:
        """Until it ends. By the clock too: one that takes no state is ended."""
        seen, silent = self._behind(), 0
        while True:
            try:
                async with asyncio.timeout(self._check):
                    await readable(pidfd)
                return
            except TimeoutError:
                pass
            behind = self._behind()
            silent = silent + 1 if behind is not None and behind == seen else 0
            seen = behind
            if not silent:
                self._tell("")
            if silent >= STUCK:
                log.warning("the %s hangs and is ended, see %s", self._name, self._child.log)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _behind(self) -> bytes | None:
        """The verdict, if it is not on the state that there is."""
        state, verdict = (read(self._child.folder, name) or b"" for name in (STATE, SERVED))
        return None if encode_json(mark_of(state)) in verdict else verdict

    def _tell(self, trouble: str) -> None:
        if trouble:
            log.warning("%s", trouble)
        if trouble != self.trouble:
            self.trouble = trouble
            self._changed()


async def stop(folder: str) -> bool:
    """End the process that holds a folder; True when one did. Idempotent."""
    claim, pidfd = claim_of(folder), living(folder)
    if pidfd is None:
        return False
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_DEADLINE):
                    await readable(pidfd)
                    break
    finally:
        os.close(pidfd)
    reap(claim.pid)
    return True


def reap(pid: int) -> None:
    """If it was our child; one that somebody else started is theirs, or init's."""
    if pid > 0:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
