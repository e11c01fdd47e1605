"""The DHCP clients of this host's endpoints, kept while the endpoint stands.

A client outlives the agent and is found again by its file; one that dies is started again and asks for the
address it had. It only asks: what it was given it writes down, and who keeps the endpoint is told.
Invariants: one client per endpoint; a client writes in a folder of its own alone, and what it says is checked
before anybody acts on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from aio.backoff import delay
from aio.inotify import DirectoryBells
from aio.mailbox import Bell
from aio.processes import open_process, process_started
from aio.spawn import readable, spawn
from aio.supervisor import Supervisor
from model.errors import DeadlineExceeded, Unsupported
from net.dhcp.lease import CLIENT, LEASE, LOG, MOST, SCRIPT, SCRIPT_TEXT, USER, Lease, argv, parse
from net.supervise import cgroup
from net.supervise.keep import reap

log = logging.getLogger("flota.net")

FOLDER = "dhcp"
NOTE = "processes-cgroup"
WITHIN = 20.0
"""Seconds that a container's start waits for an address."""
PROGRAMS = (("udhcpc",), ("busybox", "udhcpc"))


class DhcpClients:
    """`changed` is told the name of an endpoint whose client said something."""

    def __init__(self, run_dir: Path) -> None:
        self.changed: Callable[[str], None] = lambda endpoint: None
        self._run_dir = run_dir
        self._folder = run_dir / FOLDER
        self._children = Supervisor("dhcp")
        self._bells: DirectoryBells | None = None
        self._kept: dict[str, str] = {}
        """Endpoint → namespace, of those whose client is kept."""

    async def close(self) -> None:
        """The clients go on."""
        await self._children.close()
        if self._bells is not None:
            self._bells.close()

    def keep(self, endpoint: str, namespace: str, link: str, name: str) -> None:
        """Have a client for that endpoint (any name of its own), on `link` inside the namespace. Idempotent.
        Raises Unsupported where the host has none."""
        if endpoint in self._kept:
            return
        program = _program()
        folder = self._folder / endpoint
        own = (folder / LEASE).parent
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(own, USER, USER)
        for path in (self._folder, folder):
            path.chmod(0o711)
        aside = folder / f"{SCRIPT}.new"  # a client of an agent before may be running it
        aside.write_text(SCRIPT_TEXT)
        aside.chmod(0o755)
        aside.replace(folder / SCRIPT)
        if self._bells is None:
            self._bells = DirectoryBells()
        self._kept[endpoint] = namespace

        async def keep() -> None:
            await self._keep(endpoint, program, namespace, link, name)

        self._children.start(endpoint, keep, restart=True)
        self._children.start(f"{endpoint} lease", lambda: self._listen(endpoint), restart=True)

    async def obtained(self, endpoint: str, *, within: float = WITHIN) -> Lease:
        """Its lease, once it has one. Raises DeadlineExceeded, in words for people."""
        bell = Bell()
        assert self._bells is not None
        stop = self._bells.add(str((self._folder / endpoint / LEASE).parent), bell.ring)
        try:
            async with asyncio.timeout(within):
                while True:
                    lease = self.lease(endpoint)
                    if lease is not None and lease.address:
                        return lease
                    await bell.wait()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no DHCP server gave an address within {within:g} s",
                hint="Is there one on the site's network, and has it free addresses?",
            ) from error
        finally:
            stop()

    def lease(self, endpoint: str) -> Lease | None:
        """The last that its client told of, also of one before; None where there was none, or none that makes
        sense."""
        try:
            fd = os.open(self._folder / endpoint / LEASE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                return parse(file.read(MOST + 1))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("%s: what its DHCP client was told is no lease: %s", endpoint, error)
            return None

    async def drop(self, endpoint: str) -> None:
        """End its client. The lease runs out by itself: whoever starts again with the same MAC gets the same
        address until then. Idempotent."""
        self._kept.pop(endpoint, None)
        for name in (endpoint, f"{endpoint} lease"):
            await self._children.stop(name)
        folder = self._folder / endpoint
        pidfd = _running(folder)
        if pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await readable(pidfd)
            os.close(pidfd)
            reap(_client(folder)[0])
        if folder.exists():
            shutil.rmtree(folder)

    async def _keep(
        self, endpoint: str, program: tuple[str, ...], namespace: str, link: str, name: str
    ) -> None:
        folder, deaths = self._folder / endpoint, 0
        while True:
            pidfd = _running(folder)
            pid = 0
            if pidfd is None:
                pid, pidfd = self._started(folder, program, namespace, link, name)
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)
            reap(pid)
            deaths += 1
            log.warning("the DHCP client of %s ended and is started again, see %s", endpoint, folder / LOG)
            await asyncio.sleep(delay(deaths, first=0.1, limit=30.0))

    def _started(
        self, folder: Path, program: tuple[str, ...], namespace: str, link: str, name: str
    ) -> tuple[int, int]:
        before = self.lease(folder.name)
        had = before.address if before is not None else ""
        words = argv(program, namespace, link, str(folder), before=had, name=name)
        words[0] = shutil.which(words[0]) or words[0]
        env = {"PATH": os.environ.get("PATH", os.defpath), "FLOTA_LEASE": str(folder / LEASE)}
        with open(folder / LOG, "wb") as output, open(os.devnull, "rb") as nothing:
            fds = {"stdin": nothing.fileno(), "stdout": output.fileno(), "stderr": output.fileno()}
            pid = spawn(words, env, fds={}, **fds).let_go()
        pidfd = os.pidfd_open(pid)
        (folder / CLIENT).write_text(f"{pid} {process_started(pid) or 0}\n")
        self._apart(pid)
        return pid, pidfd

    def _apart(self, pid: int) -> None:
        """Out of the agent's cgroup, so that whoever ends it whole does not meet the client."""
        note = self._run_dir / NOTE
        if note.exists():
            for trouble in cgroup.join(note.read_text().strip(), pid=pid):
                log.warning("%s", trouble)

    async def _listen(self, endpoint: str) -> None:
        bell = Bell()
        assert self._bells is not None
        stop = self._bells.add(str((self._folder / endpoint / LEASE).parent), bell.ring)
        try:
            while True:
                await bell.wait()
                self.changed(endpoint)
        finally:
            stop()


def _program() -> tuple[str, ...]:
    """The client of this host. Raises Unsupported."""
    for words in PROGRAMS:
        path = shutil.which(words[0])
        if path is not None:
            return (path, *words[1:])
    raise Unsupported("this host has no DHCP client", hint="Install the package udhcpc (or busybox)")


def _running(folder: Path) -> int | None:
    """A pidfd of the client that was started last, if it runs."""
    return open_process(*_client(folder))


def _client(folder: Path) -> tuple[int, int]:
    """Pid and start of the one that was started last; zeros where there was none."""
    try:
        pid, started = map(int, (folder / CLIENT).read_text().split())
    except (FileNotFoundError, ValueError):
        return 0, 0
    return pid, started
