"""Published ports of services as kernel state: marks, routes and rules of entries, elements of ports."""

from __future__ import annotations

import struct

import msgspec
import pytest

from model.ids import HostId, InstanceId, NetworkId
from model.spec import NetworkSpec, Publish, Subnet
from model.view import NetworkPeer, NetworkView, Peer
from net.diff import Op, diff
from net.endpoint import InstanceNetwork
from net.host import INGRESS, EndpointRequest, NetworkPlan
from net.loadbalance import NOBODY, Flow, Ledger, ServiceMember, VirtualService, elements_of, pack
from net.naming import bridge_name, vtep_mac, vxlan_name
from net.nftscript import table_script
from net.plan import check, desired
from net.portelements import key, spans
from net.returnpath import FIRST_PRIORITY, FIRST_TABLE, MASK, MOST_ENTRIES, mark
from net.servicechains import Frame, all_chains, base_chains, completing_script
from net.state import NetState, Route

ME, NEAR, FAR = (HostId(d * 64) for d in "123")
NET = NetworkId(INGRESS)


def plan(*numbers: int, ingress: bool = True) -> NetworkPlan:
    """Two peers, of these numbers."""
    subnets = (Subnet(cidr="10.9.0.0/16"), Subnet(cidr="fd09::/64"))
    spec = NetworkSpec(name=INGRESS, internal=True, subnets=subnets, options={"icc": "off"})
    peers = tuple(
        NetworkPeer(host=host, blocks=(f"10.9.{n}.0/24", f"fd09::{n}00/120"), number=number)
        for n, host, number in zip((2, 3), (NEAR, FAR), numbers, strict=True)
    )
    view = NetworkView(id=NET, spec=spec, vni=4097, blocks=("10.9.1.0/24", "fd09::100/120"), peers=peers)
    return NetworkPlan(
        host=ME,
        address="192.0.2.1",
        mtu=1500,
        vxlan_port=4789,
        networks={NET: view} if ingress else {},
        peers={
            NEAR: Peer(host=NEAR, name="near", address="192.0.2.2", addresses=("192.0.2.2", "2001:db8::2")),
            FAR: Peer(host=FAR, name="far", address="192.0.2.3"),
        },
    )


def state(*numbers: int) -> NetState:
    found = plan(*numbers)
    check(found)
    return desired(found, ())


def test_each_entry_has_a_table_that_leads_to_it_and_a_rule_by_its_mark() -> None:
    made = state(7, 0)
    tables = {(r.destination, r.via, r.link, r.table) for r in made.routes if r.table}
    hop6 = next(r.via for r in made.routes if r.destination == "fd09::200/120")
    assert tables == {
        ("0.0.0.0/0", "192.0.2.2", vxlan_name(INGRESS), FIRST_TABLE + 7),
        ("::/0", hop6, vxlan_name(INGRESS), FIRST_TABLE + 7),
    }
    assert {(r.version, r.mark, r.mask, r.table, r.priority) for r in made.rules} == {
        (version, 7 << 24, MASK, FIRST_TABLE + 7, FIRST_PRIORITY + 7) for version in (4, 6)
    }


def test_marks_of_all_entries_are_within_the_mask_and_differ() -> None:
    marks = {mark(number) for number in range(1, MOST_ENTRIES + 1)}
    assert len(marks) == MOST_ENTRIES and all(m and m & MASK == m for m in marks)


def test_without_entries_or_the_network_there_is_nothing_of_it() -> None:
    none, other = state(0, 0), desired(plan(0, 0, ingress=False), ())
    for found in (none, other):
        assert not found.rules and not any(route.table for route in found.routes)
        assert not any(name.startswith(("came", "back")) for name in found.tables["inet"].chains)
    assert "entered" in none.tables["inet"].chains and "entered" not in other.tables["inet"].chains


def test_entry_is_known_by_the_sender_of_its_frames_and_others_marks_stay() -> None:
    chains = state(7, 9).tables["inet"].chains
    text = " ".join(rule.text for rule in chains["entered"].rules)
    assert f"{vtep_mac(NEAR, 4097)} : goto came-7" in text and f"{vtep_mac(FAR, 4097)} : goto came-9" in text
    assert [r.text for r in chains["came-7"].rules] == ["ct mark set ct mark and 0x80ffffff or 0x7000000"]
    assert [r.text for r in chains["back-9"].rules] == ["meta mark set meta mark and 0x80ffffff or 0x9000000"]


def test_sources_of_fleet_hosts_that_meet_their_own_members_are_translated() -> None:
    sets = state(1, 2).tables["inet"].sets
    assert set(sets["homes4"].elements) == {"192.0.2.2 . 10.9.2.0/24", "192.0.2.3 . 10.9.3.0/24"}
    assert set(sets["homes6"].elements) == {"2001:db8::2 . fd09::200/120"}
    assert set(sets["entries4"].elements) == {"10.9.2.0", "10.9.3.0"}


def test_members_are_apart_and_the_network_is_no_way_out() -> None:
    table = state(1, 2).tables["inet"]
    assert not table.sets["lanes"].elements and not table.sets["outward"].elements
    assert not table.sets["names4"].elements, "nobody asks for names there"


def test_loopback_answers_come_by_any_bridge_and_the_tunnel() -> None:
    paths = {p: v for p, v in state(1, 2).sysctls.items() if p.endswith("route_localnet")}
    assert paths == {
        f"net/ipv4/conf/{link}/route_localnet": "1" for link in (bridge_name(INGRESS), vxlan_name(INGRESS))
    }


@pytest.mark.parametrize("default", [False, True])
def test_foot_leads_answers_out_and_nothing_else_but_where_it_is_the_only_way(default: bool) -> None:
    request = EndpointRequest(
        instance=InstanceId("e" * 64), network=NET, ifname="eth1", ipv4="10.9.1.9", default_route=default
    )
    made = desired(plan(1, 2), (InstanceNetwork(namespace="/ns", endpoints=(request,)),))
    (foot,) = (link.foot for link in made.links.values() if link.foot is not None)
    assert foot.replies_only and foot.gateways == ("10.9.0.1",)
    assert foot.defaults == (("10.9.0.1",) if default else ())


def test_renumbered_entry_moves_rules_last_and_removes_them_first() -> None:
    operations = diff(state(8, 2), state(7, 2))
    kinds = [(op.verb, type(op.item).__name__) for op in operations if isinstance(op, Op)]
    assert kinds[:2] == [("remove", "PolicyRule")] * 2 and kinds[-2:] == [("add", "PolicyRule")] * 2
    assert diff(state(7, 2), state(7, 2)) == ()


def test_routes_of_two_tables_to_one_place_are_two() -> None:
    one, two = Route(destination="0.0.0.0/0", table=1), Route(destination="0.0.0.0/0", table=2)
    have, want = NetState(routes=frozenset({one})), NetState(routes=frozenset({two}))
    done = {(op.verb, op.item) for op in diff(want, have) if isinstance(op, Op)}
    assert done == {("remove", one), ("add", two)}


def test_whole_table_with_entries_can_be_written() -> None:
    script, whole = table_script("inet", state(1, 2).tables["inet"], None)
    assert whole and "chain came-1" in script and "chain left" in script


# -- elements --------------------------------------------------------------------------------------------
WEB = Publish(target=80, published=8080, mode="ingress")
TWO = (ServiceMember(ipv4="10.9.1.1", ipv6="fd09::101", inner4="10.1.1.1"), ServiceMember(ipv4="10.9.2.1"))
AT = key("tcp", 8080)


def test_port_costs_itself_and_its_members() -> None:
    found = elements_of(VirtualService(members=TWO, ports=(WEB,)))
    low = 8080 & 0xFF
    assert found["port4"] == {AT: f"port-rr-2-{low % 16}".encode()}
    assert found["port6"] == {AT: f"port-rr-1-{low % 16}".encode()}
    assert found["portpick4"] == {
        AT + struct.pack("=I", 0): pack("10.1.1.1"),
        AT + struct.pack("=I", 1): pack("10.9.2.1"),
    }
    assert found["target"] == {AT: (80).to_bytes(2, "big")}
    assert found["inner4"] == {pack("10.9.1.1"): pack("10.1.1.1")}
    assert set(found["served4"]) == {pack("10.1.1.1"), pack("10.9.1.1"), pack("10.9.2.1")}


def test_port_without_members_is_refused_and_one_that_is_closed_here_is_not_there() -> None:
    found = elements_of(VirtualService(ports=(WEB,)))
    assert found["port4"] == found["port6"] == {AT: b"refused"}
    closed = elements_of(VirtualService(members=TWO))
    assert not closed["port4"] and not closed["target"]
    assert closed["inner4"] and closed["served4"], "others may bring clients to our members all the same"


def test_allow_list_is_ranges_apart_and_one_family_closes_the_other() -> None:
    some = msgspec.structs.replace(WEB, allow=("10.0.0.0/9", "10.128.0.0/9", "192.0.2.7"))
    found = elements_of(VirtualService(ports=(some,)))
    assert set(found["limited"]) == {AT}
    assert set(found["clients4"]) == {
        AT + pack("10.0.0.0") + AT + pack("10.255.255.255"),
        AT + pack("192.0.2.7") + AT + pack("192.0.2.7"),
    }
    assert not found["clients6"]
    assert list(spans(("::/0",), 6)) == [(bytes(16), b"\xff" * 16)] and not list(spans(("::/0",), 4))


def left(then: VirtualService, now: VirtualService | None) -> set[tuple[bytes, bytes]]:
    return {(flow.vip, flow.member) for flow in Ledger({"web": then}).change({"web": now}).left}


def test_datagrams_leave_members_that_are_gone_and_ports_that_lead_elsewhere() -> None:
    udp = msgspec.structs.replace(WEB, protocol="udp")
    both, one = (VirtualService(members=m, ports=(udp,)) for m in (TWO, TWO[1:]))
    at = key("udp", 8080)
    assert left(both, one) == {(at, pack("10.1.1.1")), (at, pack("fd09::101"))}
    moved = VirtualService(members=TWO[1:], ports=(msgspec.structs.replace(udp, target=81),))
    assert left(one, moved) == {(at, pack("10.9.2.1"))}
    assert left(one, one) == set()
    assert left(VirtualService(ports=(udp,)), one) == {(at, NOBODY)}, "what came before it was open"
    assert left(VirtualService(ports=(WEB,)), VirtualService(members=TWO, ports=(WEB,))) == set(), (
        "not of TCP"
    )
    sticky = msgspec.structs.replace(one, method="sticky")
    (flow,) = Ledger({"web": sticky}).change({"web": None}).left
    assert flow == Flow(vip=at, member=pack("10.9.2.1"), sticky=True)


def test_port_that_goes_from_one_service_to_another_is_replaced() -> None:
    ledger = Ledger({"a": VirtualService(members=TWO, ports=(WEB,))})
    ledger.change({"a": VirtualService(members=TWO), "b": VirtualService(members=TWO[1:], ports=(WEB,))})
    assert set(ledger.elements["portpick4"].values()) == {pack("10.9.2.1")}
    assert ledger.published() == {("tcp", 8080)}


def test_chains_of_ports_are_there_where_the_network_is() -> None:
    with_ports, without = base_chains(Frame(ports=True)), base_chains(Frame())
    assert "ports" in with_ports and "ports" not in without
    assert len(with_ports["remember"].rules) > len(without["remember"].rules)
    script = completing_script(all_chains(Frame(ports=True), {"port-sticky-3", "rr-2-1"}), {})
    assert "map @portknown4 : meta l4proto . th dport map @target" in script
    assert "add map inet flota_services portpick4" in script
