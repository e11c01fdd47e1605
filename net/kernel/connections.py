"""Tracked connections, listed and forgotten (nfnetlink's conntrack part).

Blocking calls, each for a thread of its own: they read through all connections of the namespace.
"""

from __future__ import annotations

from collections.abc import Sequence

from net.endpoint import InstanceNetwork
from net.flows import Change, is_stale
from net.kernel import nfnetlink, rtnl
from net.kernel.observed import DUMPS, local_addresses
from net.loadbalance import Flow

TRIES = 20
"""How often the list is asked for anew when connections changed while it was written."""


def forget_connections(change: Change, instances: Sequence[InstanceNetwork]) -> None:
    """Those that are stale (`net.flows`)."""
    with rtnl.connect() as route, nfnetlink.connect() as link:
        for _ in range(TRIES):
            try:
                local = frozenset(local_addresses(rtnl.dump(route, *DUMPS["addresses"])))
                nfnetlink.forget_connections(
                    link, change.marks, lambda found: is_stale(found, change, instances), local
                )
                return
            except InterruptedError:
                continue


def forget_datagrams(flows: Sequence[Flow]) -> None:
    """UDP's of virtual addresses that go to members which they no longer lead to."""
    with rtnl.connect() as route, nfnetlink.connect() as link:
        for _ in range(TRIES):
            try:
                local = frozenset(local_addresses(rtnl.dump(route, *DUMPS["addresses"])))
                nfnetlink.forget_datagrams(link, flows, local)
                return
            except InterruptedError:
                continue


def connected_members(members: frozenset[bytes]) -> frozenset[bytes]:
    """Those of `members` to which a connection was translated. What can't be told counts as connected."""
    with nfnetlink.connect() as link:
        for _ in range(TRIES):
            try:
                return members & nfnetlink.translated_to(link)
            except InterruptedError:
                continue
    return members
