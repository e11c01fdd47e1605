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


def forget_connections(change: Change, instances: Sequence[InstanceNetwork]) -> None:
    """Those that are stale (`net.flows`)."""
    with rtnl.connect() as route, nfnetlink.connect() as link:
        local = frozenset(local_addresses(rtnl.dump(route, *DUMPS["addresses"])))
        nfnetlink.forget_connections(
            link, change.marks, lambda found: is_stale(found, change, instances), local
        )


def forget_datagrams(flows: Sequence[Flow]) -> None:
    """UDP's of virtual addresses that go to members which they no longer lead to."""
    with rtnl.connect() as route, nfnetlink.connect() as link:
        local = frozenset(local_addresses(rtnl.dump(route, *DUMPS["addresses"])))
        nfnetlink.forget_datagrams(link, flows, local)


def connected_members(members: frozenset[bytes]) -> frozenset[bytes]:
    """Those of `members` to which a connection was translated."""
    with nfnetlink.connect() as link:
        return members & nfnetlink.translated_to(link)
