"""Packets between hosts pass most of a host's network stack by, unless somebody has a say in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from msgspec.structs import replace

from model.ids import InstanceId
from model.spec import NetworkSpec
from net.naming import bridge_name, endpoint_mac, gateway_mac, vxlan_name
from net.policy import HostPolicies, Policed, compiled, endpoint_key
from net.serving import RELEASE
from tests.kernel.test_direct_networks import LISTEN, pings, space
from tests.kernel.test_spoofing import SEND
from tests.kernel.test_virtual_services import Town, addresses, names
from tests.support.hostprocess import HostProcess
from tests.support.nethosts import NetHosts, inner4, inner6, net_hosts, network_id, overlay
from tests.support.packets import ether, ip4, udp
from tests.support.talkers import Talker, answers, dialogue, server
from tests.support.waiting import side_by_side, wait_until

pytestmark = pytest.mark.kernel
NETWORK = network_id(1)
SPECS = {
    "host-gw": overlay("one", 1, ipv6=True, driver="host-gw"),
    "direct": overlay("one", 1, ipv6=True, direct="on"),
    "routed": overlay("one", 1, ipv6=True),
}
STRANGER = (
    "table inet stranger { chain f { type filter hook forward priority 9; tcp dport 1 drop; }; }",
    "table inet stranger { chain p { type filter hook prerouting priority -310; tcp dport 1 drop; }; }",
    "table ip stranger { chain f { type filter hook postrouting priority 9; policy drop; }; }",
    "table netdev stranger { chain f { type filter hook ingress device eth0 priority 9; ip ttl 0 drop; };}",
)
HARMLESS = (
    "table inet stranger { chain i { type filter hook input priority 9; tcp dport 1 drop; }; }",
    "table inet stranger { chain f { type filter hook forward priority 9; policy accept; }; }",
    "table ip stranger { chain n { type nat hook postrouting priority 99; tcp dport 1 masquerade; }; }",
)


@pytest.fixture
def pair() -> Iterator[NetHosts]:
    with net_hosts(2, "flsc") as hosts:
        yield hosts


def forwarded(host: HostProcess) -> int:
    """Packets of both families that the host's own routing has led on."""
    found = 0
    for file, wanted in (("/proc/net/snmp", "ForwDatagrams"), ("/proc/net/snmp6", "Ip6OutForwDatagrams")):
        lines = [line.split() for line in host.run("cat", file).stdout.splitlines()]
        for head, values in zip(lines, [*lines[1:], []], strict=True):
            if head[0] == "Ip:" and wanted in head and values and values[0] == "Ip:":
                found += int(values[head.index(wanted)])
            elif head[0] == wanted:
                found += int(head[1])
    return found


def shortened(host: HostProcess) -> bool:
    return host.run("nft", "list", "table", "netdev", "flota", check=False).returncode == 0


@pytest.mark.parametrize("mode", SPECS)
def test_what_passes_between_hosts_is_not_routed_by_them(pair: NetHosts, mode: str) -> None:
    spec = SPECS[mode]
    pair.carry({1: spec})
    near, far = pair.container(1, 0, 1), pair.container(2, 0, 1)
    with ExitStack() as stack:
        stack.callback(server(space(pair, 2, far), "far").close)
        for target, own in (
            (inner4(spec, 2, 0), inner4(spec, 1, 0)),
            (inner6(spec, 2, 0), inner6(spec, 1, 0)),
        ):
            assert pings(pair.hosts[1], near, target), "neighbours are known"
            assert answers(space(pair, 1, near), "udp", [target]) == [["far", own]]
            before = [forwarded(pair.hosts[n]) for n in (1, 2)]
            assert answers(space(pair, 1, near), "tcp", [target]) == [["far", own]]
            assert [forwarded(pair.hosts[n]) for n in (1, 2)] == before, target
    pair.carry({1: replace(spec, options={**spec.options, "shortcuts": "off"})})
    assert not shortened(pair.hosts[1])
    before = [forwarded(pair.hosts[n]) for n in (1, 2)]
    assert pings(pair.hosts[1], near, inner4(spec, 2, 0))
    assert all(forwarded(pair.hosts[n]) > known for n, known in zip((1, 2), before, strict=True))


def test_anybody_who_filters_what_passes_is_asked_again(pair: NetHosts) -> None:
    spec = SPECS["host-gw"]
    pair.carry({1: spec})
    near, _ = pair.container(1, 0, 1), pair.container(2, 0, 1)
    host = pair.hosts[1]
    for table in STRANGER:
        name = " ".join(table.split()[1:3])
        assert shortened(host)
        host.run("nft", table)
        wait_until(lambda: not shortened(host), deadline=1, what=f"{table} is seen")
        assert pings(host, near, inner4(spec, 2, 0)) == ("policy drop" not in table)
        host.run("nft", f"delete table {name}")
        wait_until(lambda: shortened(host), deadline=1, what=f"{name} is gone")
    for table in HARMLESS:
        host.run("nft", table)
        host.call("drifts")
        assert shortened(host), table
        host.run("nft", f"delete table {' '.join(table.split()[1:3])}")


def test_agent_that_is_stopped_leaves_no_shortcuts_and_no_gap(pair: NetHosts) -> None:
    pair.carry({1: SPECS["routed"]})
    near = pair.container(1, 0, 1)
    pair.container(2, 0, 1)
    host = pair.hosts[1]
    wait_until(lambda: shortened(host), deadline=1, what="the table")
    host.stop()
    assert not shortened(host), "nobody sees who else filters what passes"
    assert pings(host, near, inner4(SPECS["routed"], 2, 0))
    host.start()
    pair.apply(1)
    assert shortened(host) and host.call("mutations") == 1


def test_what_carries_a_vlans_tag_takes_no_shortcut(pair: NetHosts) -> None:
    spec = SPECS["host-gw"]
    pair.carry({1: spec})
    near, far = pair.container(1, 0, 1), pair.container(2, 0, 1)
    mac, gateway = endpoint_mac(near, NETWORK), gateway_mac(NETWORK)
    frame = ether(mac, 0x800, ip4(inner4(spec, 1, 0), inner4(spec, 2, 0), udp(9, 9)), gateway)
    tagged = frame[:12] + bytes.fromhex("81000005") + frame[12:]
    with ExitStack() as stack:
        listener = Talker(space(pair, 2, far), LISTEN)
        stack.callback(listener.close)
        assert pings(pair.hosts[1], near, inner4(spec, 2, 0))
        for sent, heard in ((frame, inner4(spec, 1, 0)), (tagged, "nothing")):
            pair.hosts[1].python_inside(near, SEND, "eth0", sent.hex())
            assert listener.say("?") == heard


def test_packet_at_its_last_hop_is_answered_as_routers_do(pair: NetHosts) -> None:
    spec = SPECS["host-gw"]
    pair.carry({1: spec})
    near, _ = pair.container(1, 0, 1), pair.container(2, 0, 1)
    words = ("busybox", "traceroute", "-n", "-q1", "-w1", "-m4", inner4(spec, 2, 0))
    hops = [line.split()[1] for line in pair.hosts[1].inside(near, *words).stdout.splitlines()[1:]]
    assert len(hops) == 3 and hops[-1] == inner4(spec, 2, 0), hops


def test_members_of_services_take_no_shortcut_for_as_long_as_they_are_tracked() -> None:
    """In each mode, side by side: the release takes its time."""
    side_by_side(be_tracked_and_released, ((mode,) for mode in SPECS))


def be_tracked_and_released(mode: str) -> None:
    with net_hosts(2, f"flm{mode[0]}") as hosts:
        town = Town(hosts)
        try:
            town.carry(one=SPECS[mode])
            service = town.service((2, 0))
            plain, member = inner4(town.spec, 2, 3), town.member(2, 0).ipv4
            town.talkers.append(server(town.space(2, 3), "plain"))
            host, near = hosts.hosts[1], town.space(1, 5)

            def routed(target: str) -> int:
                """How many packets of four connections passed the host's own routing."""
                before = forwarded(host)
                assert names(answers(near, "tcp", [target], 4)).total() == 4
                return forwarded(host) - before

            assert routed(member) == routed(plain) == 0
            hosts.serve(web=service)
            assert served(host) == {member, town.member(2, 0).ipv6}
            held = [town.dialogue(1, 5, "tcp", target) for target in addresses(service)]
            assert [talker.say("one") for talker in held] == ["one", "one"]
            assert routed(member) > 20 and routed(service.ipv4) > 20 and routed(plain) == 0
            host.kill()
            host.run("nft", "delete", "table", "netdev", "flota")
            host.start()
            hosts.apply(1)
            assert shortened(host) and served(host) == {member, town.member(2, 0).ipv6}
            assert [talker.say("two") for talker in held] == ["two", "two"]
            hosts.serve(web=None)
            assert served(host) == {member, town.member(2, 0).ipv6}, "it lingers"
            assert [talker.say("three") for talker in held] == ["three", "three"]
            for talker in held:
                talker.close()
                town.talkers.remove(talker)
            wait_until(lambda: not served(host), deadline=3 * RELEASE, what="the release", pause=0.5)
            assert routed(member) == 0
            assert not host.call("drifts") or not host.call("drifts")
        finally:
            town.close()


def served(host: HostProcess) -> set[str]:
    """Who takes no shortcut."""
    found = set[str]()
    for digit in "46":
        listing = host.run("nft", "-j", "list", "set", "netdev", "flota", f"served{digit}").stdout
        for entry in json.loads(listing)["nftables"]:
            found |= set(entry.get("set", {}).get("elem", ()))
    return found


@pytest.mark.parametrize("mode", SPECS)
def test_errors_and_fragments_arrive(pair: NetHosts, mode: str) -> None:
    """The bridge may have put together what was sent in parts, if the kernel filters there as well."""
    spec = SPECS[mode]
    pair.carry({1: spec})
    near, _ = pair.container(1, 0, 1), pair.container(2, 0, 1)
    host = pair.hosts[1]
    for target in (inner4(spec, 2, 0), inner6(spec, 2, 0)):
        program = "ping6" if ":" in target else "ping"
        assert pings(host, near, target), "neighbours are known"
        for size in ("1500", "4000", "20000"):
            assert host.inside(near, "busybox", program, "-c1", "-W2", f"-s{size}", target).returncode == 0
        asks = dialogue(space(pair, 1, near), "udp", target)
        try:
            assert asks.say("?") == "ConnectionRefusedError", "its port is closed"
        finally:
            asks.close()


@pytest.mark.parametrize("mode", SPECS)
def test_sender_to_an_address_that_nobody_has_any_more_is_told(pair: NetHosts, mode: str) -> None:
    spec = SPECS[mode]
    pair.carry({1: spec})
    near, far = pair.container(1, 0, 1), pair.container(2, 0, 1)
    host, targets = pair.hosts[1], (inner4(spec, 2, 0), inner6(spec, 2, 0))
    assert all(pings(host, near, target) for target in targets)
    pair.hosts[2].call("drop_namespace", far)
    for target in targets:
        found = host.inside(near, "busybox", "nc", "-w", "10", target, "80", check=False)
        assert "No route to host" in found.stderr or "unreachable" in found.stderr, found


@pytest.mark.parametrize("shortcuts", ["on", "off"])
def test_sender_of_what_is_too_large_for_the_network_elsewhere_is_told(
    pair: NetHosts, shortcuts: str
) -> None:
    """The first host's link carries more than the second's; a router between them cuts tunnels' packets."""
    spec = replace(SPECS["routed"], options={"shortcuts": shortcuts})
    pair.move(2, "198.18.8.12")
    pair.outside("ip", "link", "set", "p1", "mtu", "2000")
    host = pair.hosts[1]
    host.run("ip", "link", "set", "eth0", "mtu", "2000")
    pair.carry({1: spec})
    host.call("apply", replace(pair.plan(1), mtu=2000))
    near, _ = pair.container(1, 0, 1), pair.container(2, 0, 1)
    for target in (inner4(spec, 2, 0), inner6(spec, 2, 0)):
        assert pings(host, near, target, 1450)
        assert not pings(host, near, target, 1950)
        way = host.inside(near, "ip", "route", "get", target).stdout
        assert " mtu 1450" in way or " mtu 1430" in way, way


def test_gateway_whose_address_lies_in_a_peers_block_answers_itself(pair: NetHosts) -> None:
    """Each host has it: what is sent there stays here."""
    four, six = SPECS["routed"].subnets
    subnets = (replace(four, gateway="10.129.2.1"), replace(six, gateway="fd00:1::2fe"))
    pair.carry({1: replace(SPECS["routed"], subnets=subnets)})
    near, _ = pair.container(1, 0, 1), pair.container(2, 0, 1)
    host, link = pair.hosts[1], vxlan_name(NETWORK)
    assert pings(host, near, inner4(SPECS["routed"], 2, 0))
    sent = host.sysfs / f"class/net/{link}/statistics/tx_packets"
    before = int(sent.read_text())
    for target in ("10.129.2.1", "fd00:1::2fe"):
        assert pings(host, near, target)
    assert int(sent.read_text()) == before


def test_counters_of_the_tunnel_grow_by_what_takes_shortcuts(pair: NetHosts) -> None:
    spec = SPECS["routed"]
    pair.carry({1: spec})
    near, _ = pair.container(1, 0, 1), pair.container(2, 0, 1)
    assert pings(pair.hosts[1], near, inner4(spec, 2, 0)), "neighbours are known"

    def counted(number: int, which: str) -> int:
        file = pair.hosts[number].sysfs / f"class/net/{vxlan_name(NETWORK)}/statistics/{which}_packets"
        return int(file.read_text())

    before = {(n, which): counted(n, which) for n in (1, 2) for which in ("tx", "rx")}
    for _ in range(10):
        assert pings(pair.hosts[1], near, inner4(spec, 2, 0))
    for (number, which), known in before.items():
        assert counted(number, which) >= known + 10, (number, which)


def test_policy_judges_traffic_that_took_shortcuts_before(pair: NetHosts) -> None:
    spec = SPECS["routed"]
    pair.carry({1: spec})
    near, far = pair.container(1, 0, 1), pair.container(2, 0, 1)
    talkers = [server(space(pair, 2, far), "far")]
    try:
        target = inner4(spec, 2, 0)
        talkers.append(held := dialogue(space(pair, 1, near), "udp", target))
        assert held.say("?").startswith("far")
        closed = compiled("in-1", ())
        key = endpoint_key(far, NETWORK)
        policies = HostPolicies(classes={"in-1": closed}, endpoints={key: Policed(ingress="in-1")})
        pair.hosts[2].call("police", policies)
        assert not shortened(pair.hosts[2])
        assert held.say("?") == "TimeoutError"
        assert not pings(pair.hosts[1], near, target)
        pair.hosts[2].call("police", HostPolicies())
        assert shortened(pair.hosts[2])
        assert held.say("?").startswith("far") and pings(pair.hosts[1], near, target)
    finally:
        for talker in talkers:
            talker.close()


def test_what_routers_do_not_take_takes_no_shortcut(pair: NetHosts) -> None:
    """A frame to everybody with one's address in it; sources that are for the link alone."""
    spec = SPECS["host-gw"]
    pair.carry({1: spec})
    near, far = pair.container(1, 0, 1), pair.container(2, 0, 1)
    mac, gateway = endpoint_mac(near, NETWORK), gateway_mac(NETWORK)
    packet = ip4(inner4(spec, 1, 0), inner4(spec, 2, 0), udp(9, 9))
    nobody = ip4("0.0.0.0", inner4(spec, 2, 0), udp(68, 67))
    host, link = pair.hosts[1], pair.hosts[2].sysfs / "class/net/eth0/statistics/rx_packets"
    with ExitStack() as stack:
        listener = Talker(space(pair, 2, far), LISTEN)
        stack.callback(listener.close)
        assert pings(host, near, inner4(spec, 2, 0))
        for target, heard in ((gateway, inner4(spec, 1, 0)), ("ff:ff:ff:ff:ff:ff", "nothing")):
            frame = ether(mac, 0x800, packet, target)
            host.python_inside(near, SEND, "eth0", frame.hex())
            assert listener.say("?") == heard, target
        before = int(link.read_text())
        frames = [ether(mac, 0x800, nobody, gateway).hex()] * 50
        host.python_inside(near, SEND, "eth0", *frames)
        assert listener.say("?") == "nothing"
        assert int(link.read_text()) < before + 50


@pytest.mark.parametrize("mode", SPECS)
def test_shortcuts_and_the_links_that_they_lead_to_are_back_when_deleted(pair: NetHosts, mode: str) -> None:
    spec = SPECS[mode]
    pair.carry({1: spec})
    near, far = pair.container(1, 0, 1), pair.container(2, 0, 1)
    host, talker = pair.hosts[1], server(space(pair, 2, far), "far")
    try:
        assert pings(host, near, inner4(spec, 2, 0)), "neighbours are known"
        _delete_and_wait(pair, spec, mode, near)
    finally:
        talker.close()


def _delete_and_wait(pair: NetHosts, spec: NetworkSpec, mode: str, near: InstanceId) -> None:
    host = pair.hosts[1]
    host.run("nft", "delete table netdev flota")
    wait_until(lambda: shortened(host), deadline=1, what="the table")
    host.run(
        "nft", "flush chain netdev flota enter-eth0" if mode == "host-gw" else "flush table netdev flota"
    )
    wait_until(
        lambda: "fwd" in host.run("nft", "list table netdev flota").stdout, deadline=1, what="its rules"
    )
    host.run("ip", "link", "del", bridge_name(NETWORK))

    def well() -> bool:
        return pings(host, near, inner4(spec, 2, 0)) and pings(host, near, inner6(spec, 2, 0))

    wait_until(well, deadline=5, what="the bridge, with the way over it")
    before = forwarded(host)
    for target in (inner4(spec, 2, 0), inner6(spec, 2, 0)):
        assert answers(space(pair, 1, near), "tcp", [target])[0][0] == "far"
    assert forwarded(host) == before
    assert not host.call("drifts") or not host.call("drifts"), "it stays as it is"
