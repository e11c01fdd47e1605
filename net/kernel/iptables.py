"""iptables, run as a program: our rules in Docker's chain for rules of others (`net.dockeruser`).

Programs run only on hosts that have that chain, and only when rules may have changed: the rules' handles tell
so where iptables writes nft's rules; the older kind tells nobody, so there it is listed anew after a while.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from aio.subprocess import run
from model.errors import CommandFailed, DeadlineExceeded
from net import dockeruser
from net.kernel import chains, nfnetlink
from net.state import Admission, AdmissionFamily

Variant = Literal["nft", "legacy"]
Signature = tuple[object, ...]
_PROGRAMS: dict[AdmissionFamily, str] = {"ip": "iptables", "ip6": "ip6tables"}
_NUMBERS: dict[AdmissionFamily, int] = {"ip": nfnetlink.AF_INET, "ip6": nfnetlink.AF_INET6}
_LEGACY: dict[AdmissionFamily, str] = {"ip": "/proc/net/ip_tables_names", "ip6": "/proc/net/ip6_tables_names"}
DEADLINE = 10.0
PATIENCE = 20.0
"""Seconds for which a listing of the older kind is believed."""


class DockerChain:
    """`clock` is monotonic. Not for two calls at a time."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._variants: dict[AdmissionFamily, Variant] = {}
        self._signatures: dict[AdmissionFamily, Signature] = {}
        self.wanted: tuple[Admission, ...] = ()
        self.seen: frozenset[Admission] = frozenset()

    async def look(self) -> None:
        """Bring `wanted` and `seen` up to date."""
        wanted, seen = {a.family: a for a in self.wanted}, {a.family: a for a in self.seen}
        for family in _PROGRAMS:
            found = self._present(family)
            if found is None:
                for known in (wanted, seen, self._variants, self._signatures):
                    known.pop(family, None)
                continue
            self._variants[family], signature = found
            if self._signatures.get(family) == signature:
                continue
            listing = await self._listing(family)
            for known, value in ((wanted, _needed(listing, family)), (seen, _standing(listing, family))):
                known.pop(family, None)
                if value is not None:
                    known[family] = value
            self._signatures[family] = signature
        self.wanted = tuple(wanted[family] for family in sorted(wanted))
        self.seen = frozenset(seen.values())

    async def change(self, admission: Admission, *, remove: bool = False) -> None:
        """Raises CommandFailed, DeadlineExceeded."""
        family = admission.family
        self._signatures.pop(family, None)
        listing = await self._listing(family)
        if listing is None:
            raise CommandFailed(
                f"{self._program(family, '')} lists no rules, and Docker's drop what is for containers",
                hint="Is it installed, and of the kind that Docker uses?",
            )
        words = dockeruser.script(listing, None if remove else admission)
        restore = self._program(family, "-restore")
        done = await run([restore, "--noflush", "-w", "5"], deadline=DEADLINE, stdin=words.encode())
        done.check()

    async def _listing(self, family: AdmissionFamily) -> str | None:
        try:
            done = await run([self._program(family, ""), "-w", "5", "-S"], deadline=DEADLINE)
        except (CommandFailed, DeadlineExceeded):
            return None
        return done.stdout.decode(errors="replace") if done.code == 0 else None

    def _program(self, family: AdmissionFamily, suffix: str) -> str:
        return _program(family, self._variants[family], suffix) or f"{_PROGRAMS[family]}{suffix}"

    def _present(self, family: AdmissionFamily) -> tuple[Variant, Signature] | None:
        """The kind of iptables that has the chain, or may have it, and what its rules are known by."""
        with nfnetlink.connect() as link:
            number = _NUMBERS[family]
            if nfnetlink.has_table(link, number, "filter"):
                handles = nfnetlink.rule_handles(link, number, "filter")
                if any(chain.startswith("DOCKER") for chain, _ in handles):
                    return "nft", (handles, frozenset(chains.dropping_chains(link, "filter", number)))
        try:
            tables = Path(_LEGACY[family]).read_text(encoding="ascii")
        except OSError:
            return None
        older = dockeruser.older_kind(tables, _program(family, "legacy", ""))
        return ("legacy", (int(self._now() / PATIENCE),)) if older else None

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock()


def _program(family: AdmissionFamily, variant: Variant, suffix: str) -> str | None:
    """The one of its kind, or the one that the host has made the usual one."""
    name = _PROGRAMS[family]
    return _find(f"{name}-{variant}{suffix}") or _find(f"{name}{suffix}")


def _find(program: str) -> str | None:
    """Also where a daemon's own search path does not lead."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))


def _needed(listing: str | None, family: AdmissionFamily) -> Admission | None:
    """Where rules can't be listed, it is tried, so that people are told."""
    return Admission(family=family) if listing is None else dockeruser.wanted(listing, family)


def _standing(listing: str | None, family: AdmissionFamily) -> Admission | None:
    return None if listing is None else dockeruser.seen(listing, family)
