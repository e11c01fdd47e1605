"""What builds of this host get from the network, and from where they get nothing: the fleet's own API.

Invariant: whatever a build may reach, the controllers and this host's door for others are not among it, under
none of their addresses that this host knows.
"""

from __future__ import annotations

from collections.abc import Iterable

from image.build.base import Session
from image.context.fetcher import BuildFetcher
from image.context.guard import Guard, looked_up
from image.context.objects import Lease, Objects
from model.errors import Unavailable


async def guard_of(controllers: Iterable[str], peer_port: int) -> Guard:
    """`controllers` as HOST:PORT; `peer_port` 0: this host has no door."""
    own = [("", peer_port)] if peer_port else []
    for controller in controllers:
        host, _, port = controller.rpartition(":")
        try:
            found = await looked_up(host.strip("[]"), int(port))
        except Unavailable:
            continue  # a name that nobody knows is reached by no build either
        own += [(str(address), int(port)) for address in found]
    return Guard(own)


def fetcher_of(objects: Objects, lease: Lease, session: Session, guard: Guard) -> BuildFetcher:
    """Of one build, whose client may have tokens and keys for it."""
    return BuildFetcher(objects, lease, guard, secret=session.secret, ssh=lambda: session.ssh("default"))
