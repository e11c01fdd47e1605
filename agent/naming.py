"""The resolver of this host, kept running and told what to serve.

It is a process of its own session that outlives the agent: the next agent adopts it by its pid file, replaces
it when it is of another version, and starts it again when it died. What it serves is one file
(`agent.namefile`), written only when it changed. Invariant: at most one resolver per run folder (it holds a
lock on its pid file), and none after `stop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from agent.namefile import NameFile, prepare
from agent.runtime.procs import open_process
from agent.runtime.spawn import readable, spawn
from aio.backoff import delay
from aio.inotify import DirectoryBells
from model.codec import decode_json
from model.errors import FlotaError, InvalidInput
from net.resolver.change import Step
from net.resolver.main import VERSION
from net.resolver.serve import PID, SERVED, STATE, Served
from net.resolver.state import ResolverState
from net.resolver.statefile import Mark

log = logging.getLogger("flota.agent")

FOLDER = "names"
"""Below the agent's run folder."""
SETTLED = 60.0
"""Seconds after which a resolver's death is the first again."""
STOP_DEADLINE = 5.0
CHECK, STUCK = 5.0, 2
"""Seconds between looks without a bell; after so many of them without a word about a new state it hangs."""
MOST_LOG = 1 << 20


class Names(Protocol):
    """What the agent needs of names. Implementations: `NameService`, `FakeNames`."""

    changed: Callable[[], None]
    """Called when `troubles` are others than before."""

    @property
    def troubles(self) -> tuple[str, ...]:
        """What people should know: why names are not served, or not everywhere."""
        ...

    def update(self, state: ResolverState, step: Step | None = None) -> None:
        """Serve this from now on, which came of the last one by `step`. Cheap when little changed; never
        waits."""
        ...

    async def served(self, deadline: float = 1.0) -> bool:
        """Wait until the last state is served; False after `deadline` seconds."""
        ...

    async def run(self) -> None:
        """Keep it running until cancelled; what runs then runs on."""
        ...


class NameService:
    """`run_dir` is on a tmpfs; `log_path` takes the resolver's words; `options` are for its command line."""

    def __init__(self, run_dir: Path, log_path: Path, *, options: Sequence[str] = ()) -> None:
        self.folder = run_dir / FOLDER
        self.changed: Callable[[], None] = lambda: None
        self._log_path, self._options = log_path, tuple(options)
        self._state: ResolverState | None = None
        self._file = NameFile(self.folder)
        self._verdict = Served()
        self._trouble = ""
        self._written = False
        self._pid = 0
        self._news = asyncio.Event()

    @property
    def troubles(self) -> tuple[str, ...]:
        refused = f"names: the state is refused: {self._verdict.refused}" if self._verdict.refused else ""
        return tuple(word for word in (self._trouble, refused, *self._verdict.troubles) if word)

    def update(self, state: ResolverState, step: Step | None = None) -> None:
        if self._state is None:
            self._file.adopt()
        self._state = state
        self._write(step)

    async def served(self, deadline: float = 1.0) -> bool:
        wanted = self._file.mark if self._written else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                while not self._has_read(wanted):
                    news = self._news
                    await news.wait()
        return self._has_read(wanted) and not self._verdict.refused

    def _has_read(self, wanted: Mark | None) -> bool:
        """The resolver has that much of the file, or all of the one that came after it."""
        read = self._verdict.mark
        in_time = wanted is not None and read.reaches(wanted)
        return self._written and (in_time or read.reaches(self._file.mark))

    async def run(self) -> None:
        prepare(self.folder)
        bells = DirectoryBells()
        bells.add(str(self.folder), self._look)
        try:
            await self._keep()
        finally:
            bells.close()

    async def _keep(self) -> None:
        loop, deaths = asyncio.get_running_loop(), 0
        while True:
            pidfd = await self._adopted()
            if pidfd is None:
                pidfd = self._spawned()
            self._look()
            began = loop.time()
            if pidfd is not None:
                try:
                    await self._watch(pidfd)
                finally:
                    os.close(pidfd)
                _reap(self._pid)
                self._tell(f"names: the resolver ended and is started again, see {self._log_path}")
            deaths = 1 if loop.time() - began > SETTLED else deaths + 1
            await asyncio.sleep(delay(deaths, first=0.05, limit=10.0))

    async def _watch(self, pidfd: int) -> None:
        """Until it ends. By the clock too: a state that could not be written is written, and a resolver that
        takes none is ended."""
        seen, silent = self._verdict, 0
        while True:
            try:
                async with asyncio.timeout(CHECK):
                    await readable(pidfd)
                return
            except TimeoutError:
                pass
            if not self._written:
                self._write()
            self._look()
            behind = self._written and not self._verdict.mark.reaches(self._file.mark)
            silent = silent + 1 if behind and self._verdict == seen else 0
            seen = self._verdict
            if silent >= STUCK:
                self._tell(f"names: the resolver hangs and is ended, see {self._log_path}")
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def _adopted(self) -> int | None:
        """A pidfd of the one that runs, if it is of our version."""
        if self._state is None:
            self._written = self._file.adopt()  # what the last agent said is good until we know better
        if not self._written:
            self._write()
        pid, started, version = read_pid(self.folder)
        pidfd = open_process(pid, started)
        if pidfd is not None and version == VERSION:
            self._pid = pid
            log.info("names: adopted the resolver with pid %d", pid)
            return pidfd
        if pidfd is not None:
            os.close(pidfd)
            log.info("names: the resolver with pid %d is of version %d and replaced", pid, version)
            await stop(self.folder.parent)
        return None

    def _spawned(self) -> int | None:
        (self.folder / SERVED).unlink(missing_ok=True)  # what a dead one said
        self._verdict = Served()
        argv = [sys.executable, "-m", "net.resolver", str(self.folder), *self._options]
        try:
            self._log_path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            with open(self._log_path, "ab") as output, open(os.devnull, "rb") as nothing:
                if output.tell() > MOST_LOG:
                    output.truncate(0)
                words = {"stdin": nothing.fileno(), "stdout": output.fileno(), "stderr": output.fileno()}
                self._pid = spawn(argv, os.environ, fds={}, **words).let_go()
            pidfd = os.pidfd_open(self._pid)
        except (FlotaError, OSError) as error:
            self._tell(f"names: the resolver cannot be started: {error}")
            return None
        log.info("names: started the resolver with pid %d", self._pid)
        return pidfd

    def _write(self, step: Step | None = None) -> None:
        try:
            self._file.put(self._state or ResolverState(), step, anew=bool(self._verdict.refused))
            self._written = True
        except OSError as error:
            self._written = False
            self._tell(f"names: {self.folder / STATE} cannot be written: {error.strerror}")

    def _look(self) -> None:
        """The resolver's verdict; one that is being written is read at the next bell."""
        with contextlib.suppress(InvalidInput):
            data = _read(self.folder / SERVED)
            verdict = decode_json(data, Served, SERVED) if data else Served()
            if verdict != self._verdict:
                before = self.troubles
                self._verdict = verdict
                if verdict.mark.first and self._written:
                    self._trouble = ""
                self._news.set()
                self._news = asyncio.Event()
                if self.troubles != before:
                    self.changed()

    def _tell(self, trouble: str) -> None:
        log.warning("%s", trouble)
        if trouble != self._trouble:
            self._trouble = trouble
            self.changed()


class FakeNames:
    """The seam for the tests of everything above it: keeps what it was told."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.troubles: tuple[str, ...] = ()
        self.states: list[ResolverState] = []

    def update(self, state: ResolverState, step: Step | None = None) -> None:
        if self.states[-1:] != [state]:
            self.states.append(state)

    async def served(self, deadline: float = 1.0) -> bool:
        return bool(self.states)

    async def run(self) -> None:
        await asyncio.Event().wait()


async def stop(run_dir: Path) -> bool:
    """End the resolver of this run folder; True when one ran. Idempotent."""
    pid, started, _ = read_pid(run_dir / FOLDER)
    pidfd = open_process(pid, started)
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
    _reap(pid)
    return True


def read_pid(folder: Path) -> tuple[int, int, int]:
    """Pid, start time and version of who wrote it last; zeros when nobody did."""
    try:
        pid, started, version = map(int, (_read(folder / PID) or b"").split())
    except ValueError:
        return 0, 0, 0
    return pid, started, version


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _reap(pid: int) -> None:
    """If it was our child; one that an earlier agent started is init's."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
