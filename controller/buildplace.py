"""Which host builds: the one whose cache is likeliest to be warm. Pure.

Builds of one context go to one host as long as it is there and has room: the first in an order of all hosts
that the fleet and the context alone decide (rendezvous hashing), so that a host which comes or goes moves
only builds of its own. Invariant: equal input gives the same host, and every choice says why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from model.errors import Unavailable
from model.ids import HostId
from model.spec import Struct
from model.status import Platform

PER_BUILD = 2_000_000_000
"""Nano-CPUs that one build takes: a host builds so many at once before others are preferred."""


class Builder(Struct):
    """A host in session."""

    host: HostId
    name: str
    active: bool = True
    """It takes new work."""
    platform: Platform = Platform()
    nano_cpus: int = 0
    builds: int = 0
    """That run there now."""

    @property
    def room(self) -> int:
        return max(1, self.nano_cpus // PER_BUILD)


class Choice(Struct):
    host: HostId
    name: str
    why: str


def choose(hosts: Iterable[Builder], *, fleet: str, context: str, platform: Platform | None = None) -> Choice:
    """Raises Unavailable where no host takes builds."""
    there = sorted(hosts, key=lambda h: _weight(fleet, context, h.host))
    if not there:
        raise Unavailable("no host is ready", hint="See `flota node ls`")
    takers = [h for h in there if h.active]
    if not takers:
        raise Unavailable("no ready host takes new work", hint="See `flota node ls`, or name one by --host")
    native = [h for h in takers if platform is None or _runs(h.platform, platform)]
    words = _platform_words(platform, native, takers)
    ordered = native or takers
    if len(ordered) == 1:
        return _chosen(ordered[0], f"{words}it is the only host that takes builds")
    free = [h for h in ordered if h.builds < h.room]
    if not free:
        least = min(ordered, key=lambda h: h.builds / h.room)
        return _chosen(least, f"{words}all are busy, it least")
    if free[0] is not ordered[0]:
        first = ordered[0]
        return _chosen(free[0], f"{words}{first.name}, the usual one for this context, runs {_builds(first)}")
    return _chosen(free[0], f"{words}builds of this context go there, so its cache is the warmest")


def named(hosts: Sequence[Builder], host: HostId, ref: str) -> Choice:
    """The one that somebody asked for. Raises Unavailable."""
    for one in hosts:
        if one.host == host:
            return _chosen(one, "as you said")
    raise Unavailable(f"host {ref[:80]} is not ready", hint="See `flota node ls`")


def _chosen(host: Builder, why: str) -> Choice:
    return Choice(host=host.host, name=host.name, why=why)


def _weight(fleet: str, context: str, host: HostId) -> bytes:
    return hashlib.sha256("\0".join((fleet, context, host)).encode()).digest()


def _runs(own: Platform, wanted: Platform) -> bool:
    return own.os == wanted.os and own.arch == wanted.arch


def _platform_words(platform: Platform | None, native: Sequence[Builder], takers: Sequence[Builder]) -> str:
    if platform is None or len(native) == len(takers):
        return ""
    name = f"{platform.os}/{platform.arch}"
    return f"of those that run {name} " if native else f"no host runs {name} by itself; "


def _builds(host: Builder) -> str:
    return f"{host.builds} build{'s' if host.builds != 1 else ''} already"
