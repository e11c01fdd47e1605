"""Which hosts have a blob, which are getting it, and which one gets it from outside: decided anew with each
word of a host, kept in memory alone. Pure.

Invariant: of the hosts that reach each other one at a time is sent outside for a blob, and none while a host
that has it whole gives it. What a host says of itself only leads others to it; they check what they get.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from model.blobs import BlobPeer, BlobPeers, BlobWord
from model.ids import HostId
from model.spec import Struct

LEASE = 15.0
"""Seconds that a word is good for."""
MOST_PEERS = 8
"""That are named to one host at once."""
MAX_SWARMS = 10_000


class Place(Struct):
    """Where a host gives blobs to others."""

    address: str
    port: int


class Claim(Struct):
    until: float
    """Monotonic seconds."""
    outside: bool = False
    whole: bool = False


Swarm = Mapping[HostId, Claim]
"""Of one blob: the hosts that spoke of it."""


def alive(swarm: Swarm, now: float) -> Swarm:
    return {host: claim for host, claim in swarm.items() if claim.until > now}


def answer(
    swarm: Swarm,
    asker: HostId,
    word: BlobWord,
    holders: Collection[HostId],
    places: Mapping[HostId, Place],
    now: float,
) -> tuple[Swarm, BlobPeers]:
    """The swarm after this word, and what the asker is told. `holders` are hosts that reported the blob;
    one that gets it from outside by now has removed it, and its report of that is on its way. `places` are
    those of hosts that are in session and can be reached."""
    others = {host: claim for host, claim in alive(swarm, now).items() if host != asker}
    if word.state == "given_up":
        return others, BlobPeers()
    if word.state == "here":
        return {**others, asker: Claim(until=now + LEASE, whole=True)}, BlobPeers()
    if word.state == "fetching":
        return {**others, asker: Claim(until=now + LEASE, outside=True)}, BlobPeers()
    left_out = {*word.without, asker}
    usable = {host: claim for host, claim in others.items() if host in places and host not in left_out}
    fetching = {host for host, claim in usable.items() if claim.outside}
    whole = {host for host in holders if host in places and host not in left_out | fetching}
    whole |= {host for host, claim in usable.items() if claim.whole}
    outside = not whole and not fetching
    claim = Claim(until=now + LEASE, outside=outside)
    peers = () if outside else _named(asker, whole, usable, places)
    return {**others, asker: claim}, BlobPeers(peers=peers, outside=outside)


def _named(
    asker: HostId, whole: Collection[HostId], usable: Swarm, places: Mapping[HostId, Place]
) -> tuple[BlobPeer, ...]:
    """Who fetches it from outside in any case; of the others different ones to different hosts."""
    fetching = [host for host, claim in usable.items() if claim.outside and host not in whole]
    rest = [
        *_turned(asker, whole),
        *_turned(asker, [h for h in usable if h not in whole and h not in fetching]),
    ]
    chosen = [*fetching, *rest][:MOST_PEERS]
    return tuple(
        BlobPeer(host=h, address=places[h].address, port=places[h].port, whole=h in whole) for h in chosen
    )


def _turned(asker: HostId, hosts: Iterable[HostId]) -> list[HostId]:
    """In a ring that begins behind the asker."""
    ordered = sorted(hosts)
    return [h for h in ordered if h > asker] + [h for h in ordered if h < asker]


class Swarms:
    """All of them, and what hosts reported that they have."""

    def __init__(self) -> None:
        self._swarms: dict[str, Swarm] = {}
        self._holding: dict[HostId, frozenset[str]] = {}

    def told(self, host: HostId, blobs: Iterable[str]) -> None:
        """All that it has whole."""
        self._holding[host] = frozenset(blobs)

    def forget(self, host: HostId) -> None:
        self._holding.pop(host, None)

    def holders(self, digest: str) -> list[HostId]:
        return [host for host, blobs in self._holding.items() if digest in blobs]

    def having(self, asker: HostId, word: BlobWord, places: Mapping[HostId, Place]) -> BlobPeers:
        """Who reported what the word names, others in turn to different askers. Nobody is sent anywhere."""
        left_out = {*word.without, asker}
        whole = [host for host in self.holders(word.digest) if host in places and host not in left_out]
        return BlobPeers(peers=_named(asker, whole, {}, places))

    def answer(self, asker: HostId, word: BlobWord, places: Mapping[HostId, Place], now: float) -> BlobPeers:
        swarm = self._swarms.get(word.digest, {})
        after, reply = answer(swarm, asker, word, self.holders(word.digest), places, now)
        self._swarms.pop(word.digest, None)
        if after:
            self._swarms[word.digest] = after  # the youngest last
        if len(self._swarms) > MAX_SWARMS:
            self._tidy(now)
        return reply

    def _tidy(self, now: float) -> None:
        self._swarms = {digest: left for digest, s in self._swarms.items() if (left := alive(s, now))}
        while len(self._swarms) > MAX_SWARMS:
            del self._swarms[next(iter(self._swarms))]
