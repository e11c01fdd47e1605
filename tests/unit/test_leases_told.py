"""What hosts tell of their addresses, in a network's figures."""

from __future__ import annotations

from agent.addresses import Addresses
from model.api import BlockUsage
from model.ids import InstanceId, NetworkId
from model.leases import NetworkLeases, counted
from net.ipam import Leases


def test_figures_count_what_rests_and_what_is_leaked_where_hosts_told() -> None:
    usage = (
        BlockUsage(cidr="10.1.0.0/28", host="n1", size=13, used=4, free=9),
        BlockUsage(cidr="10.1.0.16/28", host="n2", size=15, used=0, free=15),
        BlockUsage(cidr="fd00::/120", host="n1", size=254, used=4, free=250),
    )
    told = NetworkLeases(
        held=9, resting=("10.1.0.5", "fd00::5", "10.1.0.17"), leaked=("10.1.0.7", "10.1.0.8")
    )
    first, second, six = counted(usage, {"n1": told})
    assert (first.resting, first.leaked, first.free, first.untold) == (1, 2, 6, False)
    assert (second.resting, second.leaked, second.free, second.untold) == (0, 0, 15, True)
    assert (six.resting, six.leaked, six.free) == (1, 0, 249)


def test_figures_pass_over_what_is_no_address() -> None:
    usage = BlockUsage(cidr="10.1.0.0/28", host="n1", size=13, used=4, free=9)
    (found,) = counted((usage,), {"n1": NetworkLeases(resting=("oops", "10.1.0.5", "10.1.0.0/28"))})
    assert (found.resting, found.free) == (1, 8)


def test_a_book_tells_who_rests_and_who_holds_without_being_known() -> None:
    book, blue = Addresses(), NetworkId("blue")
    leases = Leases(
        held={"10.1.0.5": InstanceId("a"), "10.1.0.6": InstanceId("b")},
        resting={"10.1.0.7": 9.0, "10.1.0.8": 11.0},
    )
    book._set(blue, leases)
    (told,) = book.told({InstanceId("a")}, 10.0).networks.values()
    assert told == NetworkLeases(held=2, resting=("10.1.0.8",), leaked=("10.1.0.6",))
