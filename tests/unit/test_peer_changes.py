"""A change of peers alone: what it costs, and that it is what a whole comparison would say."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import HostId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.view import NetworkPeer, NetworkView, Peer
from net.diff import NftOp, Op, diff
from net.host import INGRESS, NetworkPlan
from net.hostfirewall import HostFirewall
from net.peerdiff import peer_changes
from net.plan import desired

ALONE = HostFirewall(alone=True)
ME = HostId("f" * 64)
KINDS: Mapping[str, NetworkSpec] = {
    "routed": NetworkSpec(name="n"),
    "bridged": NetworkSpec(name="n", options={"mode": "bridged"}),
    "direct": NetworkSpec(name="n", options={"direct": "on"}),
    "host-gw": NetworkSpec(name="n", driver="host-gw"),
}


class Place(msgspec.Struct, frozen=True):
    """Where a peer is: the third and fourth part of its address, and a block's number on each network."""

    subnet: int
    address: int
    blocks: tuple[int, ...]


def host_of(number: int) -> HostId:
    return HostId(f"{number:064x}")


def plan(kinds: tuple[str, ...], places: Mapping[int, Place]) -> NetworkPlan:
    networks: dict[str, NetworkView] = {}
    for index, kind in enumerate(kinds):
        subnets = (Subnet(cidr=f"10.{index}.0.0/16"), Subnet(cidr=f"fd00:{index}::/64"))
        members = tuple(
            NetworkPeer(host=host_of(number), blocks=blocks(index, place.blocks[index]))
            for number, place in sorted(places.items())
            if place.blocks[index]
        )
        ident = NetworkId(f"{index:x}" * 64)
        networks[ident] = NetworkView(
            id=ident,
            spec=msgspec.structs.replace(KINDS[kind], subnets=subnets),
            vni=4097 + index,
            blocks=blocks(index, 255),
            peers=members,
        )
    peers = {
        host_of(n): Peer(
            host=host_of(n), name=f"h{n}", address=f"198.18.{p.subnet}.{p.address}", link_local="fe80::9"
        )
        for n, p in places.items()
    }
    return NetworkPlan(
        host=ME,
        address="198.18.0.254",
        mtu=1500,
        vxlan_port=4789,
        networks=networks,
        peers=peers,
        link="eth0",
        onlink=("198.18.0.0/24",),
    )


def blocks(network: int, number: int) -> tuple[str, ...]:
    return (f"10.{network}.{number}.0/24", f"fd00:{network}::{number:x}00/120")


PLACES = st.dictionaries(
    st.integers(1, 5),
    st.builds(
        Place,
        subnet=st.integers(0, 1),
        address=st.integers(1, 4),
        blocks=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    ),
    max_size=5,
).filter(lambda places: all(len({p.blocks[i] for p in places.values()}) == len(places) for i in (0, 1)))


@given(
    kinds=st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS))),
    before=PLACES,
    after=PLACES,
)
def test_changes_of_peers_are_those_of_a_whole_comparison(
    kinds: tuple[str, str], before: dict[int, Place], after: dict[int, Place]
) -> None:
    old, new = plan(kinds, before), plan(kinds, after)
    found = peer_changes(old, new)
    if found is None:
        return
    whole = diff(desired(new, ()), desired(old, ()))
    assert {op for op in found if isinstance(op, Op)} == {op for op in whole if isinstance(op, Op)}
    tables = [op for op in found if isinstance(op, NftOp)]
    assert [op.script for op in tables] == [op.script for op in whole if isinstance(op, NftOp)]
    assert not any(op.whole for op in tables)


ADDRESSES = st.dictionaries(st.tuples(st.integers(1, 9), st.integers(1, 3)), st.integers(1, 5), max_size=6)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    moves=st.sets(st.integers(1, 5), max_size=2),
    then=ADDRESSES,
    now=ADDRESSES,
    common=ADDRESSES,
)
def test_changes_of_peers_are_those_of_a_whole_comparison_where_addresses_follow_and_nobody_filters(
    kind: str,
    moves: set[int],
    then: dict[tuple[int, int], int],
    now: dict[tuple[int, int], int],
    common: dict[tuple[int, int], int],
) -> None:
    places = {n: Place(subnet=n % 2, address=n, blocks=(n, n)) for n in range(1, 6)}
    moved = {n: msgspec.structs.replace(p, address=p.address + 9 * (n in moves)) for n, p in places.items()}
    old, new = lent(plan((kind, kind), places), common | then), lent(plan((kind, kind), moved), common | now)
    found = peer_changes(old, new, ALONE)
    if old == new:
        assert found is None
        return
    assert found is not None
    whole = diff(desired(new, (), ALONE), desired(old, (), ALONE))
    assert sorted(found, key=repr) == sorted(whole, key=repr)


def lent(whole: NetworkPlan, addresses: Mapping[tuple[int, int], int]) -> NetworkPlan:
    """With single addresses of blocks at these peers."""
    ident = NetworkId("0" * 64)
    view = whole.networks[ident]
    more: dict[HostId, tuple[str, ...]] = {}
    for (block, at), holder in sorted(addresses.items()):
        more[host_of(holder)] = (*more.get(host_of(holder), ()), f"10.0.{block}.{at}/32")
    members = tuple(msgspec.structs.replace(m, blocks=(*m.blocks, *more.get(m.host, ()))) for m in view.peers)
    changed = msgspec.structs.replace(view, peers=members)
    return msgspec.structs.replace(whole, networks={**whole.networks, ident: changed})


@pytest.mark.parametrize("kind", ["routed", "host-gw"])
def test_address_that_moves_costs_the_same_among_few_and_many(kind: str) -> None:
    costs = set()
    for count in (10, 200):
        addresses = {(n % 250 + 1, 9): n % 5 + 1 for n in range(8, count)}
        one = lent(plan((kind,), crowd(count)), {**addresses, (3, 9): 1})
        other = lent(plan((kind,), crowd(count)), {**addresses, (3, 9): 2})
        found = peer_changes(one, other, ALONE)
        assert found is not None
        costs.add(found)
    assert len(costs) == 1


def crowd(count: int, but: Mapping[int, Place] | None = None) -> dict[int, Place]:
    places = {
        n: Place(subnet=n % 200, address=n // 200 + 1, blocks=(n % 250 + 1,)) for n in range(1, count + 1)
    }
    return {**places, **(but or {})}


@pytest.mark.parametrize("kind", KINDS)
def test_change_of_one_peer_costs_the_same_among_few_and_many(kind: str) -> None:
    costs = set()
    for count in (10, 200):
        moved = {7: Place(subnet=7, address=99, blocks=(8,))}
        found = peer_changes(plan((kind,), crowd(count)), plan((kind,), crowd(count, moved)))
        assert found is not None
        costs.add(tuple(str(op) for op in found if isinstance(op, Op)))
    assert len(costs) == 1


def test_more_than_peers_takes_a_whole_comparison() -> None:
    one = plan(("routed",), crowd(3))
    (network,) = one.networks.values()
    bigger = msgspec.structs.replace(network, blocks=(*network.blocks, "10.0.254.0/24"))
    for other in (
        one,
        msgspec.structs.replace(one, mtu=1400),
        msgspec.structs.replace(one, networks={}),
        msgspec.structs.replace(one, networks={network.id: bigger}),
        msgspec.structs.replace(one, onlink=()),
    ):
        assert peer_changes(one, other) is None


def test_an_address_that_two_peers_have_takes_a_whole_comparison() -> None:
    twice = crowd(3, {4: Place(subnet=1, address=1, blocks=(9,))})
    assert peer_changes(plan(("routed",), twice), plan(("routed",), crowd(3))) is None


def test_an_entry_for_published_ports_takes_a_whole_comparison() -> None:
    one, two = plan(("routed",), crowd(3)), plan(("routed",), crowd(2))
    ingress = {INGRESS: msgspec.structs.replace(next(iter(one.networks.values())), id=NetworkId(INGRESS))}
    fewer = {INGRESS: msgspec.structs.replace(next(iter(two.networks.values())), id=NetworkId(INGRESS))}
    before, after = (msgspec.structs.replace(p, networks=n) for p, n in ((one, ingress), (two, fewer)))
    assert peer_changes(before, after) is None


def test_the_filter_changes_by_the_peers_own_address_alone() -> None:
    found = peer_changes(plan(("routed",), crowd(3)), plan(("routed",), crowd(4)))
    assert found is not None
    (nft,) = [op for op in found if isinstance(op, NftOp)]
    assert nft.script.strip() == "add element inet flota peers4 { 198.18.4.1 }"


def test_a_peer_of_an_encrypted_network_takes_a_whole_comparison() -> None:
    """Its end may be elsewhere than we said."""
    sealed = NetworkSpec(name="n", options={"encrypted": "on"})
    changed = []
    for count in (3, 4):
        one = plan(("routed",), crowd(count))
        ((ident, view),) = one.networks.items()
        spec = msgspec.structs.replace(sealed, subnets=view.spec.subnets)
        networks = {ident: msgspec.structs.replace(view, spec=spec)}
        changed.append(msgspec.structs.replace(one, networks=networks))
    assert peer_changes(*changed) is None
