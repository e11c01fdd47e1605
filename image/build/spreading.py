"""Which stages of a build other hosts do, so that it ends sooner. Pure.

Earliest finish, longest way first (HEFT: Topcuoglu, Hariri, Wu 2002): each stage goes where its result would
be at home soonest, what it reads moved there and what it makes moved back. Invariants: no host does more at
once than it has room for; a stage begins once all that it reads is there; equal input gives an equal plan; a
plan that does not save what spreading costs is that of home alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from model.spec import Struct

LEAST, SHARE = 3.0, 0.15
"""Seconds, and part of the whole, that a plan must save: estimates err, and each host is asked, told and
watched."""
ASKED = 0.2
"""Seconds until another host has begun."""
MAX_STAGES = 200
"""Of more than these a build is done at home: the plan itself would take long."""


class Work(Struct):
    """A stage. `seconds` that its steps take which no cache has, about; `moves`: bytes that a host away from
    home lacks for it, but for what other stages make; `gives`: bytes of the layers that it makes."""

    stage: int
    needs: tuple[int, ...] = ()
    seconds: float = 0.0
    moves: int = 0
    gives: int = 0
    stays: str = ""
    """Why it can be done at home alone; empty: it may go."""


class Host(Struct):
    """`room`: stages that it can do now, at a time; `rate`: bytes a second between it and the others."""

    name: str
    room: int = 1
    rate: float = 100e6


class Place(Struct):
    """Seconds from now; `back`: when home has what it made."""

    stage: int
    host: str
    begins: float
    ends: float
    back: float
    why: str


def spread(works: Iterable[Work], home: Host, others: Sequence[Host] = ()) -> tuple[Place, ...]:
    """In the order in which they begin. What a stage needs and no work is of is there already. Raises
    ValueError for a circle."""
    known = {work.stage: work for work in works}
    order = _order(known)
    alone = _Plan(known, home, ()).run(order)
    takers = tuple(host for host in others if host.room > 0 and host.rate > 0)
    if not takers or len(order) > MAX_STAGES:
        return alone
    wide = _Plan(known, home, takers).run(order)
    before, after = (max((place.back for place in plan), default=0.0) for plan in (alone, wide))
    if before - after < max(LEAST, SHARE * before):
        return alone
    why = f"other hosts build along: about {after:.0f} s rather than {before:.0f} s"
    return tuple(_said(place, home, why) for place in wide)


class _Plan:
    def __init__(self, works: Mapping[int, Work], home: Host, others: Sequence[Host]) -> None:
        self._works = works
        self._home = home
        self._hosts = {host.name: host for host in (home, *others)}
        self._free = {host.name: [0.0] * max(1, host.room) for host in self._hosts.values()}
        """When each of a host's places for a stage is free."""
        self._places: dict[int, Place] = {}

    def run(self, order: Sequence[int]) -> tuple[Place, ...]:
        for stage in order:
            work = self._works[stage]
            hosts = [self._home] if work.stays or not work.seconds else list(self._hosts.values())
            options = [self._on(host, work) for host in hosts]
            best = min(options, key=lambda place: (place.back, place.host != self._home.name, place.host))
            free = self._free[best.host]
            if work.seconds:
                free[free.index(min(free))] = best.ends
            self._places[stage] = best
        return tuple(sorted(self._places.values(), key=lambda place: (place.begins, place.stage)))

    def _on(self, host: Host, work: Work) -> Place:
        ready = max((self._there(need, host) for need in work.needs if need in self._places), default=0.0)
        away = host.name != self._home.name
        moved = ASKED + work.moves / host.rate if away else 0.0
        begins = max(ready, moved, min(self._free[host.name]) if work.seconds else 0.0)
        ends = begins + work.seconds
        back = ends + (work.gives / host.rate if away else 0.0)
        return Place(stage=work.stage, host=host.name, begins=begins, ends=ends, back=back, why=work.stays)

    def _there(self, stage: int, host: Host) -> float:
        """When a host has what a stage made."""
        place = self._places[stage]
        if place.host == host.name:
            return place.ends
        rate = min(host.rate, self._hosts[place.host].rate)
        return place.ends + self._works[stage].gives / rate


def _order(works: Mapping[int, Work]) -> list[int]:
    """Each after what it needs; of those that may be next, the one with the longest way to the end first."""
    users: dict[int, list[int]] = {stage: [] for stage in works}
    missing = {stage: {need for need in work.needs if need in works} for stage, work in works.items()}
    for stage, needs in missing.items():
        for need in needs:
            users[need].append(stage)
    forwards: list[int] = []
    ready = sorted(stage for stage, needs in missing.items() if not needs)
    left = {stage: len(needs) for stage, needs in missing.items()}
    while ready:
        stage = ready.pop()
        forwards.append(stage)
        for user in users[stage]:
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    if len(forwards) < len(works):
        raise ValueError("stages that need each other")
    way: dict[int, float] = {}
    depth: dict[int, int] = {}
    for stage in reversed(forwards):
        way[stage] = works[stage].seconds + max((way[user] for user in users[stage]), default=0.0)
        depth[stage] = 1 + max((depth[user] for user in users[stage]), default=0)
    return sorted(works, key=lambda stage: (-way[stage], -depth[stage], stage))


def _said(place: Place, home: Host, why: str) -> Place:
    away = place.host != home.name
    words = place.why if place.why and not away else why if away else "it ends here as soon as elsewhere"
    return Place(
        stage=place.stage,
        host=place.host,
        begins=place.begins,
        ends=place.ends,
        back=place.back,
        why=words,
    )
