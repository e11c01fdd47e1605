"""One blob from other hosts, piece by piece, from several at once.

A peer that fails, lies about what it has, or is slow is left out from then on, and its piece is asked of
another. Invariant: when `run` returns, nothing of it runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Coroutine, Iterator
from enum import Enum
from typing import Any, Protocol

from msgspec.structs import replace

from aio.backoff import delay, jittered
from aio.mailbox import Bell
from image.peers import chunks
from image.peers.choice import WINDOW, choose
from image.peers.client import Busy, NotHere, Papers, PeerClient, one_line
from image.peers.partial import Partial
from image.peers.proof import proof
from model.blobs import BlobPeer, BlobPeers, BlobWord
from model.errors import Exhausted, FlotaError
from model.ids import HostId

log = logging.getLogger("flota.image")
ASK_FIRST, ASK_LAST = 0.25, 2.0
"""Seconds between two questions to the controller, who may know more peers by then: at first, and later."""
PER_PEER = 2
"""Pieces asked of one peer at once: the next waits there while one comes."""
BUSY_AGAIN = 0.2
"""Seconds, jittered, until a peer that has too many callers is asked again."""
GRACE = 0.5
"""Seconds for which a piece that one peer has is left to the host whose turn it is."""
NO_NEWS = 0.5
"""Seconds after an answer that told nothing new: a peer is to answer once there is news."""
STALL = 10.0
"""Seconds without anything: those that were asked are left out."""
STALLS = 3
"""Times; then the blob comes from outside, whatever the controller says."""


class Swarm(Protocol):
    """Who of the fleet has what: the controller."""

    @property
    def own(self) -> HostId: ...

    async def ask(self, word: BlobWord) -> BlobPeers | None:
        """None: nobody knows now."""
        ...


class Outcome(Enum):
    COMPLETE = "complete"
    """All pieces are here, unverified."""
    OUTSIDE = "outside"
    """This host is to get it from outside, for all."""
    ALONE = "alone"
    """The controller does not answer, or peers bring nothing."""
    NOBODY = "nobody"
    """This host could not get it from outside, and no peer has more of it."""


class Fetch:
    """Of one blob. `without` grows; `gave` tells from whom each piece came."""

    def __init__(
        self, partial: Partial, swarm: Swarm, client: PeerClient, image: str, offer: BlobPeers | None = None
    ) -> None:
        self._partial = partial
        self._swarm = swarm
        self._client = client
        self._image = image
        self._offer = offer or BlobPeers()
        self.without: dict[HostId, str] = {}
        self.gave: dict[int, HostId] = {}
        self._peers: dict[HostId, BlobPeer] = {}
        self._offers: dict[HostId, int] = {}
        self._partly: set[HostId] = set()
        """That were said to have all of it, and had not."""
        self._asked = 0
        self._since: dict[int, float] = {}
        """When each piece was first seen at a peer."""
        self._papers = Papers()
        self._news = Bell()
        self._more = asyncio.Event()
        self._failure: FlotaError | None = None
        self._stalls = 0

    async def run(self, *, outside_failed: bool = False) -> Outcome:
        """Raises Exhausted."""
        self._partial.touched = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            tasks: dict[HostId, list[asyncio.Task[None]]] = {}
            try:
                outcome = await self._supervise(group, tasks, outside_failed)
            finally:
                for task in (task for some in tasks.values() for task in some):
                    task.cancel()
        self._peers.clear()
        self._offers.clear()
        self._asked = 0
        if self._failure is not None:
            raise self._failure
        return outcome

    async def _supervise(
        self, group: asyncio.TaskGroup, tasks: dict[HostId, list[asyncio.Task[None]]], outside_failed: bool
    ) -> Outcome:
        asked = 0
        while True:
            if self._partial.complete or self._failure is not None:
                return Outcome.COMPLETE
            word = BlobWord(digest=self._partial.layer.digest, without=tuple(self.without), image=self._image)
            reply = await self._swarm.ask(word)
            offered = [peer for peer in self._offer.peers if peer.host not in self.without]
            offered = offered or [peer for peer in self._peers.values() if self._brings(peer)]
            if reply is None and not offered:
                return Outcome.ALONE
            reply = reply or BlobPeers()
            if reply.outside and not offered:
                return Outcome.NOBODY if outside_failed else Outcome.OUTSIDE
            self._papers = Papers(
                ticket=self._offer.ticket or reply.ticket or self._papers.ticket,
                proof=proof(self._partial.remote.manifest, self._swarm.own),
            )
            for peer in {peer.host: peer for peer in (*reply.peers, *offered)}.values():
                peer = replace(peer, whole=peer.whole and peer.host not in self._partly)
                if peer.host not in self.without and peer != self._peers.get(peer.host):
                    for task in tasks.pop(peer.host, ()):
                        task.cancel()
                    tasks[peer.host] = [group.create_task(one) for one in self._work_of(peer)]
            if self._stalled():
                return Outcome.ALONE
            asked += 1
            await self._news.wait(delay(asked, first=ASK_FIRST, limit=ASK_LAST))

    def _brings(self, peer: BlobPeer) -> bool:
        """Whether it has what is missing here: a controller that was started anew may not know that."""
        return bool(self._offers.get(peer.host, 0) & self._partial.missing)

    def _stalled(self) -> bool:
        """Whether that happened too often; those that brought nothing are left out."""
        now = asyncio.get_running_loop().time()
        if now - self._partial.touched < STALL:
            return False
        self._partial.touched = now
        self._stalls += 1
        for host in list(self._offers):
            self._leave(host, f"it brought nothing for {STALL:g} s")
        return self._stalls >= STALLS

    def _work_of(self, peer: BlobPeer) -> Iterator[Coroutine[Any, Any, None]]:
        self._peers[peer.host] = peer
        self._offers[peer.host] = chunks.every(self._partial.layer.size) if peer.whole else 0
        if not peer.whole:
            yield self._follow(peer)
        for _ in range(PER_PEER):
            yield self._take(peer)

    async def _follow(self, peer: BlobPeer) -> None:
        """Hear what it has, for as long as it is asked."""
        layer, known, seen = self._partial.layer, 0, 0
        with self._left_out(peer):
            while peer.host in self._offers:
                have = await self._client.have(peer, layer.digest, layer.size, known, self._papers)
                known = have.bit_count()
                if peer.host in self._offers:
                    self._offers[peer.host] = have
                    self._wake()
                if have == chunks.every(layer.size):
                    return
                if not have & ~seen:
                    await asyncio.sleep(NO_NEWS)
                seen |= have

    async def _take(self, peer: BlobPeer) -> None:
        """Pieces of it, one after the other, as long as it is asked."""
        layer = self._partial.layer
        with self._left_out(peer):
            while peer.host in self._offers and not self._partial.complete:
                missing, late = self._partial.missing, self._overdue()
                piece = choose(missing, self._asked, self._offers, peer.host, self._swarm.own, late)
                if piece is None:
                    await self._more_or(GRACE)
                    continue
                self._asked |= 1 << piece
                try:
                    data = await self._client.piece(
                        peer, layer.digest, layer.size, piece, self._papers, self._partial.touch
                    )
                    self.gave[piece] = peer.host
                    await self._partial.put(piece, data)
                    self._since.pop(piece, None)
                except NotHere:
                    if not peer.whole:
                        raise
                    self._partly.add(peer.host)
                    self._news.ring()
                    return
                except Busy:
                    await asyncio.sleep(jittered(BUSY_AGAIN, random.random()))
                finally:
                    self._asked &= ~(1 << piece)
                    self._wake()
                if not self._partial.missing:
                    self._news.ring()

    @contextlib.contextmanager
    def _left_out(self, peer: BlobPeer) -> Iterator[None]:
        try:
            yield
        except Exhausted as error:
            self._failure = error
            self._news.ring()
        except FlotaError as error:
            self._leave(peer.host, one_line(error.message))

    def _leave(self, host: HostId, why: str) -> None:
        if self._offers.pop(host, None) is None:
            return
        log.info("layer %s: not from host %s: %s", self._partial.layer.digest[7:19], host[:12], why)
        self._peers.pop(host, None)
        self.without[host] = why
        self._wake()
        self._news.ring()

    def _overdue(self) -> int:
        """Pieces that some peer has had for a while."""
        now = asyncio.get_running_loop().time()
        for piece in chunks.members(self._partial.missing, WINDOW):
            if any(offer >> piece & 1 for offer in self._offers.values()):
                self._since.setdefault(piece, now)
        late = [piece for piece, since in self._since.items() if now - since >= GRACE]
        return sum(1 << piece for piece in late)

    async def _more_or(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._more.wait()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
