"""macvlan networks on real links: who reaches whom, addresses that strangers have, what others undo.

Two hosts on one link, `eth0`; the switch is the site's router and a machine of the site.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product

import pytest
from msgspec.structs import replace

from model.ids import InstanceId
from model.policy import PolicySpec, Selector
from model.spec import NetworkSpec, Subnet
from net.host import EndpointRequest
from net.naming import shim_name
from tests.support.hostprocess import run_in
from tests.support.nethosts import NetHosts, address, inner4, inner6, ip, net_hosts, network_id, overlay
from tests.support.policed import API, INGRESS, STRANGER, WEB, Policed, asks
from tests.support.talkers import answers, server
from tests.support.waiting import side_by_side, wait_until

pytestmark = pytest.mark.kernel

LAN = NetworkSpec(
    name="lan",
    driver="macvlan",
    subnets=(Subnet(cidr="10.150.0.0/16"), Subnet(cidr="fd00:e::/64")),
    options={"parent": "eth0"},
)
OVERLAY = overlay("back", 1)
ROUTER4, ROUTER6, BEYOND = "10.150.0.1", "fd00:e::1", "203.0.113.9"
STRANGER4, STRANGER6 = "10.150.1.200", "fd00:e::1c8"
BACK = 5.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[NetHosts]:
    with net_hosts(2, "flsi") as made:
        for cidr in (f"{ROUTER4}/16", f"{STRANGER4}/16"):
            ip("-n", made.switch, "address", "add", cidr, "dev", "br0")
        for cidr in (f"{ROUTER6}/64", f"{STRANGER6}/64"):
            ip("-n", made.switch, "address", "add", cidr, "dev", "br0", "nodad")
        ip("-n", made.switch, "address", "add", f"{BEYOND}/32", "dev", "lo")
        made.carry({1: OVERLAY, 2: LAN})
        yield made


def space(hosts: NetHosts, number: int, instance: InstanceId) -> str:
    return str(hosts.hosts[number].run_dir / "ns" / instance)


def request(instance: InstanceId, ipv4: str, ipv6: str = "", *, ifname: str = "eth0") -> EndpointRequest:
    return EndpointRequest(
        instance=instance, network=network_id(2), ifname=ifname, ipv4=ipv4, ipv6=ipv6, default_route=True
    )


def test_container_on_the_sites_network_is_reached_by_all_and_reaches_all(hosts: NetHosts) -> None:
    ends = {"near": (1, 0), "beside": (1, 1), "far": (2, 0)}
    made = {name: hosts.container(number, index, 2) for name, (number, index) in ends.items()}
    spaces = {name: space(hosts, ends[name][0], instance) for name, instance in made.items()}
    spaces |= {"host": f"/run/netns/{hosts.hosts[1].netns}", "stranger": f"/run/netns/{hosts.switch}"}
    targets = {name: (inner4(LAN, *ends[name]), inner6(LAN, *ends[name])) for name in ends}
    targets |= {"host": ("10.150.1.0", "fd00:e::100"), "stranger": (ROUTER4, STRANGER6)}
    with ExitStack() as stack:
        for name, where in spaces.items():
            stack.callback(server(where, name).close)
        asking = {"near": targets.keys(), "far": {"near", "stranger"}}
        asking |= {"host": {"near", "beside", "far"}, "stranger": {"near", "beside", "far"}}
        for who, whom in asking.items():
            for name in whom:
                for kind in ("tcp", "udp"):
                    for target, heard in zip(
                        targets[name], answers(spaces[who], kind, targets[name]), strict=True
                    ):
                        assert heard[0] == name, (who, name, kind, target, heard)
        ((heard, *_),) = answers(spaces["near"], "tcp", [address(1)])
        assert heard == "host", "by its own address, which is not of the network"
    for (number, _), instance in zip(ends.values(), made.values(), strict=True):
        hosts.hosts[number].call("drop_namespace", instance)


@pytest.mark.parametrize(("ipv4", "ipv6"), [(STRANGER4, ""), ("10.150.1.60", STRANGER6)])
def test_address_of_a_stranger_is_refused_with_its_mac_and_nothing_is_left(
    hosts: NetHosts, ipv4: str, ipv6: str
) -> None:
    host, instance = hosts.hosts[1], InstanceId("d" * 64)
    (link,) = json.loads(run_in(f"/run/netns/{hosts.switch}", ["ip", "-j", "link", "show", "br0"],
                                check=True, timeout=5).stdout)  # fmt: skip
    host.call("open_namespace", instance)
    with pytest.raises(RuntimeError, match=f"AddressTaken.*{ipv6 or ipv4}.*{link['address']}"):
        host.call("attach", request(instance, ipv4, ipv6))
    seen = json.loads(host.inside(instance, "ip", "-j", "link").stdout)
    assert [found["ifname"] for found in seen] == ["lo"]
    endpoint = host.call("attach", request(instance, "10.150.1.61", "fd00:e::13d"))
    assert endpoint["resolver"] == "10.150.1.0"
    host.call("drop_namespace", instance)


def test_neighbours_caches_follow_a_new_holder(hosts: NetHosts) -> None:
    host, instance, wanted = hosts.hosts[1], InstanceId("e" * 64), ("10.150.1.70", "fd00:e::146")
    for target in wanted:
        ip("-n", hosts.switch, "neigh", "replace", target, "lladdr", "02:00:00:00:00:99", "dev", "br0",
           "nud", "stale")  # fmt: skip
    host.call("open_namespace", instance)
    endpoint = host.call("attach", request(instance, *wanted))

    def known(target: str) -> str:
        words = ["ip", "-j", "neigh", "show", target, "dev", "br0"]
        (entry,) = json.loads(run_in(f"/run/netns/{hosts.switch}", words, check=True, timeout=5).stdout)
        return str(entry["lladdr"])

    for target in wanted:
        wait_until(lambda t=target: known(t) == endpoint["mac"], deadline=1, what=f"{target} is known")  # type: ignore[misc]
    host.call("drop_namespace", instance)


def test_answers_leave_by_the_sites_network_whatever_the_way_out_is(hosts: NetHosts) -> None:
    instance = hosts.container(1, 2, 1, 2)
    inside = hosts.hosts[1].inside
    (way,) = json.loads(inside(instance, "ip", "-j", "route", "show", "default").stdout)
    assert way["dev"] == "eth0"
    with_source = ("busybox", "ping", "-c1", "-W2", "-I", BEYOND, inner4(LAN, 1, 2))
    assert hosts.outside(*with_source).returncode == 0
    with contextlib.closing(server(space(hosts, 1, instance), "me")):
        asked = (ASK, BEYOND, inner4(LAN, 1, 2))
        assert hosts.python_outside(*asked).stdout.split()[0] == "me"
    hosts.hosts[1].call("drop_namespace", instance)


ASK = """
import socket, sys
with socket.create_connection((sys.argv[2], 80), 3, (sys.argv[1], 0)) as s:
    print(s.recv(99).decode())
"""
UNDONE = {
    "the container's link": ("inside", "ip link del eth0"),
    "the shim": ("host", "ip link del {shim}"),
    "the shim's address": ("host", "ip address flush dev {shim}"),
    "the shim's route": ("host", "ip route del 10.150.1.0/24"),
    "the shim is down": ("host", "ip link set {shim} down"),
    "the shim's switch": ("host", "sysctl -qw net.ipv4.conf.{shim}.rp_filter=1"),
}


@pytest.mark.parametrize("what", UNDONE)
def test_what_others_undo_is_back_within_a_second(hosts: NetHosts, what: str) -> None:
    where, words = UNDONE[what]
    host, instance = hosts.hosts[1], hosts.container(1, 3, 2)
    wait_until(lambda: host.call("drifts") == [], deadline=3, what="rest", pause=0.3)
    argv = words.format(shim=shim_name(network_id(2))).split()
    before = host.inside(instance, "ip", "-br", "address").stdout
    _ = host.inside(instance, *argv) if where == "inside" else host.run(*argv)
    wait_until(lambda: host.call("drifts") != [], deadline=1, what=f"{what} is back")
    assert names(before) == names(host.inside(instance, "ip", "-br", "address").stdout)
    ping = ("busybox", "ping", "-c1", "-W2", inner4(LAN, 1, 3))
    assert host.run(*ping, check=False).returncode == 0
    assert hosts.outside(*ping).returncode == 0
    host.call("drop_namespace", instance)


def names(listing: str) -> list[list[str]]:
    """Links and their addresses, without those that a link makes itself."""
    lines = (line.split() for line in listing.splitlines())
    return [[name.partition("@")[0], *(w for w in own if w[:4] != "fe80")] for name, _, *own in lines]


def test_restarted_agent_finds_all_as_it_was_and_changes_nothing(hosts: NetHosts) -> None:
    host, instance = hosts.hosts[1], hosts.container(1, 4, 2)
    host.kill()
    host.start()
    hosts.apply(1)
    first = host.call("mutations")
    host.call("attach", hosts.foot(1, 4, 2))
    assert (first, host.call("mutations")) == (0, 0)
    host.call("detach", instance, network_id(2))
    seen = json.loads(host.inside(instance, "ip", "-j", "link").stdout)
    assert [found["ifname"] for found in seen] == ["lo"]
    host.call("drop_namespace", instance)


def test_parent_that_comes_back_carries_its_endpoints_again(hosts: NetHosts) -> None:
    host, instance = hosts.hosts[2], hosts.container(2, 5, 2)
    host.run("ip", "link", "del", "eth0")
    ip("-n", hosts.switch, "link", "add", "p2", "type", "veth", "peer", "name", "eth0", "netns", host.netns)
    ip("-n", hosts.switch, "link", "set", "p2", "master", "br0", "up")
    host.run("ip", "link", "set", "eth0", "up")
    ping = ("busybox", "ping", "-c1", "-W1", inner4(LAN, 2, 5))
    wait_until(lambda: hosts.outside(*ping, check=False).returncode == 0, deadline=BACK, what="it is back")
    host.call("drop_namespace", instance)


def test_policies_hold_inside_the_container_from_its_first_packet_on() -> None:
    """The host's packet filter sees nothing of it, so this is the container's own."""
    with net_hosts(2, "flsp") as made, ExitStack() as stack:
        site = Policed(made, LAN)
        stack.callback(site.close)
        site.police(INGRESS)
        site.start((1, WEB), (1, API), (2, API), (1, STRANGER), (2, STRANGER))
        shim = f"/run/netns/{made.hosts[1].netns}"
        kinds, near = ("tcp", "udp"), site.near(1, WEB)
        heard = side_by_side(site.hears, product((1, 2), (API, STRANGER), site.web(1), kinds))
        assert heard == {case: case[1] == API for case in heard}
        for target, kind in product(site.web(1), kinds):
            assert asks(shim, target, kind), "its host always reaches it"
        assert not any(side_by_side(site.hears, product((1, 2), (STRANGER,), (near,), kinds)).values())
        site.police()
        assert all(site.hears(2, STRANGER, target) for target in (*site.web(1), near))
        out = PolicySpec(name="out", selects=Selector(container="stranger"), egress=())
        site.police(out)
        targets = ((2, STRANGER, target) for target in (*site.web(1), near))
        assert not any(side_by_side(site.hears, targets).values())
        assert site.hears(2, API, site.web(1)[0])
        made.hosts[2].kill()
        assert site.silent(2, STRANGER, site.web(1)[0])
        made.hosts[2].start()
        site.apply(2, out)
        assert site.silent(2, STRANGER, site.web(1)[0])
        site.apply(2)
        assert site.hears(2, STRANGER, site.web(1)[0])


@pytest.mark.parametrize(
    ("mode", "beside", "host"), [("private", False, False), ("vepa", True, True), ("bridge", True, True)]
)
def test_modes_keep_neighbours_on_a_host_apart_or_together(mode: str, beside: bool, host: bool) -> None:
    """vepa: by a switch that sends back to where it came from (IEEE 802.1Qbg)."""
    spec = replace(LAN, options={"parent": "eth0", "mode": mode})
    with net_hosts(2, "flsm") as made:
        ip("-n", made.switch, "address", "add", f"{ROUTER4}/16", "dev", "br0")
        ip("-n", made.switch, "link", "set", "p1", "type", "bridge_slave", "hairpin", "on")
        made.carry({2: spec})
        first = made.container(1, 0, 2)
        for number, index in ((1, 1), (2, 0)):
            made.container(number, index, 2)

        def pings(target: str, via: str = "") -> bool:
            words = ("busybox", "ping", "-c1", "-W1", target)
            ran = made.hosts[1].run if via == "host" else partial(made.hosts[1].inside, first)
            return ran(*words, check=False).returncode == 0

        assert pings(inner4(LAN, 2, 0)) and pings(ROUTER4)
        assert pings(inner4(LAN, 1, 1)) is beside
        assert pings(inner4(LAN, 1, 0), via="host") is host


def test_passthru_gives_the_link_to_one_and_tells_the_next() -> None:
    spec = replace(LAN, options={"parent": "eth0", "mode": "passthru"})
    with net_hosts(1, "flst") as made:
        made.carry({2: spec})
        made.container(1, 0, 2)
        with pytest.raises(RuntimeError, match=r"refused to add macvlan .* on eth0"):
            made.container(1, 1, 2)


def test_hosts_own_address_that_a_machine_of_the_site_has_is_told() -> None:
    with net_hosts(1, "flso") as made:
        for cidr in ("10.150.1.0/16", "fd00:e::100/64"):
            ip("-n", made.switch, "address", "add", cidr, "dev", "br0", *(("nodad",) if ":" in cidr else ()))
        made.carry({2: LAN})
        told = list[str]()

        def heard() -> bool:
            told.extend(found["object"] for found in made.hosts[1].call("drifts"))
            wanted = {f"address {a} of network lan" for a in ("10.150.1.0", "fd00:e::100")}
            return wanted <= set(told)

        wait_until(heard, deadline=3, what="both are told")
