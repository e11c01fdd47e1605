"""Which names a network's members make, and what they lead to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from model.directory import Member
from model.ids import InstanceId, NetworkId
from model.spec import NetworkSpec, Subnet
from net import names
from net.host import PREDEFINED_BRIDGE, predefined_bridge
from net.resolver.state import decode, encode, fits
from tests.support.names import (
    BACK,
    FRONT,
    NETWORKS,
    SHUT,
    asker,
    ident,
    instance,
    plain,
    replica,
    state,
    view,
)

TASKS = {
    ident(1): replica(1, ipv6="fd00:1::0001"),
    ident(2): replica(2),
    ident(3): replica(3, ready=False),
}


def served(members: dict[InstanceId, Member], vips: names.Vips | None = None) -> dict[str, tuple[str, ...]]:
    return dict(names.zone(NETWORKS[BACK], members, vips).names)


def test_service_leads_to_its_ready_tasks_and_each_task_to_itself() -> None:
    assert served({**TASKS}) == {
        "000000000001": ("10.1.0.1", "fd00:1::1"),
        "000000000002": ("10.1.0.2",),
        "000000000003": ("10.1.0.3",),
        "tasks.web": ("10.1.0.1", "fd00:1::1", "10.1.0.2"),
        "web": ("10.1.0.1", "fd00:1::1", "10.1.0.2"),
        "web.1": ("10.1.0.1", "fd00:1::1"),
        "web.1.xyz1": ("10.1.0.1", "fd00:1::1"),
        "web.2": ("10.1.0.2",),
        "web.2.xyz2": ("10.1.0.2",),
        "web.3": ("10.1.0.3",),
        "web.3.xyz3": ("10.1.0.3",),
    }


def test_service_with_a_vip_leads_there_and_its_tasks_by_tasks() -> None:
    found = served({**TASKS}, {"web": ("10.9.0.1", ""), "new": ("10.9.0.2", "fd09::2")})
    assert found["web"] == ("10.9.0.1",) and found["new"] == ("10.9.0.2", "fd09::2")
    assert found["tasks.web"] == ("10.1.0.1", "fd00:1::1", "10.1.0.2") and found["tasks.new"] == ()


def test_service_without_a_ready_task_is_known_and_leads_nowhere() -> None:
    found = served({ident(3): replica(3, ready=False)})
    assert found["web"] == () and found["web.3"] == ("10.1.0.3",)


def test_alias_leads_to_all_its_ready_holders() -> None:
    members = {
        ident(1): plain("a", "10.1.0.1", aliases="DB x"),
        ident(2): plain("b", "10.1.0.2", aliases="db"),
        ident(3): plain("c", "10.1.0.3", aliases="db", ready=False),
        ident(4): replica(4, aliases=("only",), ready=False),
    }
    found = served({**members})
    assert found["db"] == ("10.1.0.1", "10.1.0.2") and found["x"] == ("10.1.0.1",) and found["only"] == ()


def test_alias_of_a_container_that_is_not_ready_still_leads_to_it() -> None:
    assert served({ident(1): plain("a", "10.1.0.1", aliases="db", ready=False)})["db"] == ("10.1.0.1",)


def test_alias_like_a_service_or_a_container_takes_nothing_over() -> None:
    thief = plain("thief", "10.1.0.66", aliases="web tasks.web web.1 a")
    found = served({**TASKS, ident(8): plain("a", "10.1.0.8"), ident(9): thief})
    assert "10.1.0.66" not in {*found["web"], *found["tasks.web"], *found["web.1"], *found["a"]}


def test_names_that_no_message_can_hold_are_left_out() -> None:
    long = plain("n" * 64, "10.1.0.1", aliases=f"{'a' * 63} {'b' * 64} x..y dot.")
    found = names.zone(NETWORKS[BACK], {ident(1): long})
    assert set(found.names) == {"000000000001", "a" * 63}
    assert found.reverse == {"10.1.0.1": "000000000001.back"}


def test_network_gives_gateways_to_listen_on_and_reverse_names() -> None:
    found = names.zone(NETWORKS[BACK], TASKS, {"web": ("10.9.0.1", "")})
    assert found.network == "back" and found.listen == ("10.1.0.1", "fd00:1::1")
    assert found.reverse["10.1.0.2"] == "web.2.xyz2.back" and found.reverse["10.9.0.1"] == "web.back"
    assert found.tasks == {"web": ("web.1.xyz1", "web.2.xyz2")}


def test_predefined_bridge_has_no_names() -> None:
    bridge = view(NetworkId(PREDEFINED_BRIDGE), "bridge", 9)
    assert bridge.spec.name == predefined_bridge().name and not names.has_names(bridge)
    networks = {**NETWORKS, bridge.id: bridge}
    feet = [asker((bridge.id, "172.29.0.2")), asker((bridge.id, "172.29.0.3"), (SHUT, "10.3.0.3"))]
    found = names.clients(feet, networks)
    assert "172.29.0.2" not in found
    assert found["10.3.0.3"].zones == (SHUT,) and found["10.3.0.3"].outside


def test_client_is_known_by_each_address_and_has_its_networks_in_order() -> None:
    feet = asker((FRONT, "10.2.0.7"), (BACK, "10.1.0.7"), (BACK, "fd00:1::0007"), dns=("192.0.2.1",))
    found = names.clients([feet], NETWORKS)
    assert set(found) == {"10.2.0.7", "10.1.0.7", "fd00:1::7"} and len(set(map(id, found.values()))) == 1
    assert found["10.1.0.7"].zones == (FRONT, BACK) and found["10.1.0.7"].upstreams == ("192.0.2.1",)


def test_links_of_a_client_lead_to_names_of_the_network_where_they_were_made() -> None:
    links = {FRONT: {"DB": "Postgres", "c": "a" * 64}, BACK: {"db": "mysql", "x": "y"}}
    feet = replace(asker((FRONT, "10.2.0.7"), (BACK, "10.1.0.7")), links=links)
    told = names.clients([feet], NETWORKS)["10.2.0.7"].links
    assert told == {"db": "postgres.front", "c": f"{'a' * 12}.front", "x": "y.back"}, "the first has it"
    assert names.clients([feet], {BACK: NETWORKS[BACK]})["10.2.0.7"].links == {
        "db": "mysql.back",
        "x": "y.back",
    }


def test_client_on_internal_networks_only_does_not_ask_outside() -> None:
    shut, both = asker((SHUT, "10.3.0.1")), asker((SHUT, "10.3.0.2"), (BACK, "10.1.0.2"))
    found = names.clients([shut, both], NETWORKS)
    assert not found["10.3.0.1"].outside and found["10.3.0.2"].outside


def test_network_that_is_not_here_gives_no_names() -> None:
    assert names.clients([asker((NetworkId("gone"), "10.8.0.1"))], NETWORKS) == {}


def test_equal_networks_are_equal_bytes_in_any_order() -> None:
    pairs = list(TASKS.items())
    feet = [asker((BACK, "10.1.0.1")), asker((FRONT, "10.2.0.1"))]
    one = encode(state({BACK: dict(pairs)}, *feet))
    other = encode(state({BACK: dict(reversed(pairs))}, *reversed(feet)))
    assert one == other and encode(decode(one)) == one


TEXT = st.text("aB0.-_é", max_size=70)
MEMBERS = st.dictionaries(
    st.integers(0, 9).map(instance),
    st.builds(
        Member,
        name=TEXT,
        host=st.just("h"),
        service_name=st.sampled_from(["", "a", "B"]),
        slot=st.integers(0, 2),
        aliases=st.lists(TEXT, max_size=3).map(tuple),
        ipv4=st.sampled_from(["", "10.1.0.1", "10.1.0.2"]),
        ready=st.booleans(),
    ),
    max_size=6,
)


@given(MEMBERS)
def test_every_name_fits_and_leads_to_members_only(members: dict[InstanceId, Member]) -> None:
    spec = NetworkSpec(name="Net.Work", subnets=(Subnet(cidr="10.1.0.0/16"),))
    found = names.zone(view(BACK, spec.name, 1), members)
    known = {member.ipv4 for member in members.values()}
    for name, addresses in found.names.items():
        assert fits(name) and name == name.lower() and set(addresses) <= known
    assert all(fits(name) for tasks in found.tasks.values() for name in tasks)
    assert all(fits(name) for name in found.reverse.values())
