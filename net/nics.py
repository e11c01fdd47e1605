"""The links that are ports of this host's networks' bridges: kept so, given back when nobody wants them.

Each change is a process of its own (`net.nic`) that outlives the agent; here is only decided that one is
needed.
Invariants: a link is given back before its bridge goes; a move that was taken back is not tried again until
somebody asks (`look(asked=True)`), or the wish or the link is another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from aio.mailbox import Bell
from aio.spawn import readable, spawn
from model.codec import encode_json
from model.errors import CommandFailed, FlotaError
from net.nic import files
from net.nic.shift import Links, Stand
from net.nic.state import FAILED, FOLDER, KEPT, Journal, Wish
from net.supervise.keep import reap

log = logging.getLogger("flota.net")

LOG = "nic.log"
MOST_LOG = 1 << 20


class Site(Protocol):
    """What is there, and who changes it. Implementations: `LinuxSite`, the tests' fake."""

    def journals(self) -> Mapping[str, Journal]:
        """By bridge. Raises FlotaError, OSError."""
        ...

    def standing(self, wishes: Iterable[Wish]) -> Mapping[str, Stand]:
        """By bridge. Raises FlotaError, OSError."""
        ...

    async def change(self, action: str, what: str) -> None:
        """As `python -m net.nic FOLDER action what`; returns when it ended. Raises CommandFailed."""
        ...


class Nics:
    def __init__(self, site: Site) -> None:
        self.changed: Callable[[], None] = lambda: None
        """Called when `troubles` are others than before."""
        self._site = site
        self._wishes: Mapping[str, Wish] = {}
        self._bell = Bell()
        self._turn = asyncio.Lock()
        self._looked = asyncio.Event()
        self.troubles: Mapping[str, str] = {}
        """By bridge: why its link is no port of it."""

    async def run(self) -> None:
        """Until cancelled; a change that is on its way goes on."""
        while True:
            await self._bell.wait()
            await self.look()

    def ring(self) -> None:
        """Links may be others than before."""
        if self._wishes:
            self._bell.ring()

    async def want(self, wishes: Iterable[Wish]) -> Mapping[str, str]:
        """These and no others; returns once all others are given back. What can't be is told, by bridge, with
        the reason: such a bridge must stay. Rung once the bridges are there, wanted links become ports."""
        wanted = {wish.bridge: wish for wish in wishes}
        if wanted == self._wishes and not self._surplus(wanted):
            return {}
        held = {}
        async with self._turn:
            for bridge, journal in self._surplus(wanted).items():
                await self._site.change("return", bridge)
                if bridge in self._site.journals():
                    parent = journal.wish.parent
                    held[bridge] = f"{parent} could not be taken out of {bridge}, see {LOG} in the run folder"
            if wanted != self._wishes:
                self._wishes, self._looked = wanted, asyncio.Event()
        return held

    def _surplus(self, wanted: Mapping[str, Wish]) -> Mapping[str, Journal]:
        """What was moved, or is to be looked after, for nobody any more."""
        known = self._site.journals()
        return {b: j for b, j in known.items() if b not in wanted or wanted[b].parent != j.wish.parent}

    async def ready(self, bridge: str) -> None:
        """Wait until it is known how the link of that bridge stands. Raises CommandFailed where it is no
        port."""
        if bridge in self._wishes:
            await self._looked.wait()
        if trouble := self.troubles.get(bridge):
            raise CommandFailed(trouble)

    async def look(self, *, asked: bool = False) -> None:
        """Make ports of the links that are none. `asked`: also of those where that failed before."""
        async with self._turn:
            found = dict[str, str]()
            for bridge, wish in self._wishes.items():
                try:
                    found[bridge] = await self._kept(wish, asked)
                except (FlotaError, OSError) as error:
                    found[bridge] = f"network {wish.network}: {error}"
            before, self.troubles = self.troubles, {b: why for b, why in found.items() if why}
            self._looked.set()
        if before != self.troubles:
            for why in self.troubles.values():
                log.warning("%s", why)
            self.changed()

    async def _kept(self, wish: Wish, asked: bool) -> str:
        """Why the link is no port in the end; empty if it is one."""
        journal = await self._settled(wish.bridge)
        standing = self._site.standing((wish,))[wish.bridge]
        if standing.is_port and journal is not None and journal.phase == KEPT:
            return ""
        if standing.refusal:
            return _words(wish, standing.refusal)
        if journal is not None and journal.phase == FAILED and not asked:
            same = journal.link == standing.link and _alike(journal.wish, wish)
            if same:
                return f"{_words(wish, journal.why)}; `flota network doctor` tries again"
        await self._site.change("move", encode_json(wish).decode())
        after = await self._settled(wish.bridge)
        if after is not None and after.phase == KEPT:
            return ""
        why = after.why if after is not None else f"moving {wish.parent} failed, see {LOG} in the run folder"
        return f"{_words(wish, why)}; `flota network doctor` tries again"

    async def _settled(self, bridge: str) -> Journal | None:
        """What is written of it, once no change is half done, whatever is in the link's way by now: who made
        one may have died, and who watched too."""
        journal = self._site.journals().get(bridge)
        if journal is not None and journal.phase not in (KEPT, FAILED):
            await self._site.change("recover", bridge)
            journal = self._site.journals().get(bridge)
        return journal


def _alike(one: Wish, other: Wish) -> bool:
    """But for who is asked afterwards."""
    return (one.parent, one.bridge, one.mtu) == (other.parent, other.bridge, other.mtu)


def _words(wish: Wish, why: str) -> str:
    return f"network {wish.network}: {why}"


class LinuxSite:
    """This network namespace; `run_dir` is the agent's."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = str(run_dir / FOLDER)

    def journals(self) -> Mapping[str, Journal]:
        return {journal.wish.bridge: journal for journal in files.journals(self._folder)}

    def standing(self, wishes: Iterable[Wish]) -> Mapping[str, Stand]:
        links = Links()
        try:
            return {wish.bridge: links.now(wish) for wish in wishes}
        finally:
            links.close()

    async def change(self, action: str, what: str) -> None:
        """Cancelled, it leaves the process at work."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        argv = [sys.executable, "-P", "-m", "net.nic", self._folder, action, what]
        with open(os.path.join(self._folder, LOG), "ab") as output, open(os.devnull, "rb") as nothing:
            if output.tell() > MOST_LOG:
                output.truncate(0)
            words = {"stdin": nothing.fileno(), "stdout": output.fileno(), "stderr": output.fileno()}
            pid = spawn(argv, os.environ, fds={}, **words).let_go()
        pidfd = os.pidfd_open(pid)
        try:
            await readable(pidfd)
        finally:
            os.close(pidfd)
            reap(pid)
