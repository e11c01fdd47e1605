"""The controller's part of layers that hosts give to each other: who has what, and tickets.

Invariant: nothing of it is written; a controller that starts knows nothing, and hears it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from controller.commands.hosts import member
from controller.core import Core
from controller.snapshot import Cluster
from controller.swarms import MOST_PEERS, Place
from model.blobs import MAX_WITHOUT, BlobPeer, BlobPeers, BlobWord, Ticket, to_sign, write_ticket
from model.errors import InvalidInput, NotFound
from model.ids import HostId
from model.reportrules import is_blob

COPY_LIFE = 6 * 3600.0
"""Seconds that a copy which a person asked for may take."""
TICKET_LIFE = 600.0
"""Seconds; also how long a host that was removed may still be given what it knows of."""


class Sharing(Core):
    """`controller.controller.Controller` is one."""

    def share_blob(self, host: HostId, certificate: str, word: BlobWord) -> BlobPeers:
        """What a host should do about a blob that it speaks of. Raises NotFound, Forbidden for one that the
        fleet does not know (any more), InvalidInput."""
        cluster = self.snapshot()
        member(cluster, host, certificate)
        if not is_blob(word.digest) or len(word.without) > MAX_WITHOUT:
            raise InvalidInput(f"{word.digest[:80]!r} is no blob")
        if word.record:
            reply = self.swarms.having(host, word, self._places(cluster))
        else:
            reply = self.swarms.answer(host, word, self._places(cluster), self.clock.monotonic())
        if not reply.peers:
            return reply
        if word.record:  # who knows a step's key has all that it is made of: the key is a digest of that
            ticket = self.ticket(host, certificate, records=(word.digest,))
            return msgspec.structs.replace(reply, ticket=ticket)
        images = (word.image.partition("@")[2],) if may_have(cluster, host, word.image) else ()
        return msgspec.structs.replace(reply, ticket=self.ticket(host, certificate, *images))

    def peers_for(self, host: HostId, digest: str, sources: Sequence[HostId]) -> BlobPeers:
        """Those of `sources` that give blobs, and the ticket by which `host` gets the image there. Raises
        NotFound."""
        cluster = self.snapshot()
        record = cluster.hosts.get(host)
        if record is None:
            raise NotFound("no such host")
        places = self._places(cluster)
        peers = tuple(
            BlobPeer(host=source, address=places[source].address, port=places[source].port, whole=True)
            for source in sources
            if source in places and source != host
        )
        ticket = self.ticket(host, record.certificate, digest, life=COPY_LIFE)
        return BlobPeers(peers=peers[:MOST_PEERS], ticket=ticket)

    def ticket(
        self,
        host: HostId,
        certificate: str,
        *images: str,
        records: tuple[str, ...] = (),
        life: float = TICKET_LIFE,
    ) -> str:
        until = self.clock.now() + life
        ticket = Ticket(host=host, certificate=certificate, until=until, images=images, records=records)
        return write_ticket(ticket, self.authority.sign(to_sign(msgspec.json.encode(ticket))))

    def _places(self, cluster: Cluster) -> dict[HostId, Place]:
        found = {}
        for ident in self.sessions.hosts():
            host = cluster.hosts.get(ident)
            if host is not None and host.facts.peer_port and not host.facts.behind_nat:
                found[ident] = Place(address=host.facts.address, port=host.facts.peer_port)
        return found


def may_have(cluster: Cluster, host: HostId, image: str) -> bool:
    """Whether a host has a container to make of this image, named by its digest. Pure."""
    digest = image.partition("@")[2]
    return bool(digest) and any(
        i.spec.image.partition("@")[2] == digest for i in cluster.on_host(host).values()
    )
