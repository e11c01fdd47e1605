"""A thousand peers in a real kernel: what a full sync takes, and what one peer's change."""

from __future__ import annotations

import time

import pytest

from tests.support.manypeers import large_plan
from tests.support.nethosts import address, net_hosts

pytestmark = pytest.mark.kernel
PEERS = 1000


def test_a_thousand_peers_are_synced_and_one_of_them_moves() -> None:
    with net_hosts(1, "flmp") as hosts:
        host = hosts.hosts[1]

        def applied(moved: int = 0) -> tuple[float, int]:
            """Seconds and operations."""
            before, began = host.call("mutations"), time.perf_counter()
            host.call("apply", large_plan(address(1), PEERS, moved=moved))
            return time.perf_counter() - began, host.call("mutations") - before

        whole, nothing, change, back = applied(), applied(), applied(7), applied()
        print(f"{PEERS} peers: {whole}, again {nothing}, one moves {change} and back {back}")
        assert whole[1] >= 5 * PEERS and nothing[1] == 0
        assert change[1] == back[1] <= 6
        routes = host.run("ip", "route", "show", "proto", "247").stdout.count(" via 198.19.")
        assert routes == PEERS
        assert whole[0] < 15 and change[0] < 5
        host.call("remove_all")
