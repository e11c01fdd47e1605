"""What a fleet's size costs a host: operations per peer, and those of one peer's change."""

from __future__ import annotations

from net.diff import NftOp, Operation, diff
from net.plan import desired
from net.state import NetState
from tests.support.manypeers import large_plan

ADDRESS = "198.19.255.1"


def operations(peers: int, moved: int = 0) -> tuple[Operation, ...]:
    """From nothing; or from `peers` to one of them with another address."""
    before = NetState() if not moved else desired(large_plan(ADDRESS, peers), ())
    return diff(desired(large_plan(ADDRESS, peers, moved=moved), ()), before)


def test_full_sync_costs_five_messages_for_each_peer() -> None:
    """Of each family a route and a neighbour, and one FDB entry; its filter is one transaction."""
    assert len(operations(1000)) - len(operations(500)) == 5 * 500


def test_one_peers_change_costs_the_same_in_small_and_large_fleets() -> None:
    few, many = operations(10, moved=7), operations(1000, moved=7)
    assert len(few) == len(many) <= 6
    scripts = [[op.script for op in found if isinstance(op, NftOp)] for found in (few, many)]
    assert scripts[0] == scripts[1], "elements of its address, and nothing of others'"
