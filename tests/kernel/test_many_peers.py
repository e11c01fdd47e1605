"""A thousand peers in a real kernel: what a full sync takes, and what one peer's change."""

from __future__ import annotations

import time

import pytest

from model.view import NetworkPeer
from net.host import NetworkPlan
from tests.support.manypeers import NETWORK, large_plan
from tests.support.nethosts import NetHosts, address, net_hosts
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel
PEERS = 1000
PER_PEER = 5
"""Two routes, two neighbours and an FDB entry."""


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
        assert change[1] == back[1] <= 7
        routes = host.run("ip", "route", "show", "proto", "247").stdout.count(" via 198.19.")
        assert routes == PEERS
        assert whole[0] < 15 and change[0] < 5
        host.call("remove_all")


def costs(hosts: NetHosts, plan: NetworkPlan) -> tuple[int, int]:
    """Operations that the kernel was asked for, and listings of all that there is."""
    operations, looks, _ = hosts.hosts[1].call("cost_of_apply", plan)
    return int(operations), int(looks)


def test_one_peers_change_costs_the_same_among_a_few_and_a_thousand() -> None:
    with net_hosts(1, "flmq") as hosts:
        own, full, single = address(1), dict[int, int](), dict[int, list[tuple[int, int]]]()
        hosts.hosts[1].call("apply", large_plan(own, 0))
        for count in (100, PEERS):
            full[count] = costs(hosts, large_plan(own, count))[0]
            steps = (
                large_plan(own, count, moved=7),
                large_plan(own, count),
                large_plan(own, count - 1),
                large_plan(own, count),
            )
            single[count] = [costs(hosts, step) for step in steps]
            hosts.hosts[1].call("apply", large_plan(own, 0))
            assert " via " not in hosts.hosts[1].run("ip", "route", "show", "proto", "247").stdout
        assert full[PEERS] - full[100] == (PEERS - 100) * PER_PEER
        assert single[100] == single[PEERS]
        assert all(looks == 0 and operations <= 2 * PER_PEER + 1 for operations, looks in single[PEERS])
        hosts.hosts[1].call("remove_all")


def test_damage_beside_a_peers_change_is_repaired_soon() -> None:
    """What is changed without a look at the rest hides nothing."""
    with net_hosts(1, "flmr") as hosts:
        host = hosts.hosts[1]
        host.call("apply", large_plan(address(1), PEERS))
        victim: NetworkPeer = large_plan(address(1), PEERS).networks[NETWORK].peers[700]
        host.run("ip", "route", "del", victim.blocks[0])
        host.call("apply", large_plan(address(1), PEERS, moved=7))

        def back() -> bool:
            return " via " in host.run("ip", "route", "show", victim.blocks[0]).stdout

        wait_until(back, deadline=2, what="the route's return")
        host.call("remove_all")
