"""Real networks between hosts that are namespaces: reachability, isolation, NAT, ports, drift, restart."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator

import msgspec
import pytest

from model.ids import InstanceId
from model.spec import NetworkSpec, Subnet
from model.status import BoundPort
from net.naming import bridge_name, vxlan_name
from tests.support.hostprocess import HostProcess, run_in
from tests.support.nethosts import (
    OUTSIDE,
    NetHosts,
    address,
    inner4,
    inner6,
    ip,
    net_hosts,
    network_id,
    overlay,
)
from tests.support.packets import ether, icmp6
from tests.support.talkers import Talker
from tests.support.waiting import side_by_side, wait_until

pytestmark = pytest.mark.kernel

BRIDGE = NetworkSpec(name="b", driver="bridge", subnets=(Subnet(cidr="10.201.0.0/16"),))
INTERNAL = NetworkSpec(name="i", driver="bridge", subnets=(Subnet(cidr="10.202.0.0/16"),), internal=True)


@pytest.fixture
def pair() -> Iterator[NetHosts]:
    with net_hosts(2, "flnt") as hosts:
        yield hosts


def reaches(host: HostProcess, instance: str, target: str) -> bool:
    done = host.inside(instance, "busybox", "ping", "-c1", "-W1", target, check=False)
    return done.returncode == 0


def serve(namespace: str, port: int) -> Talker:
    """A TCP server that answers each connection with the client's address."""
    code = (
        "import socket,sys\n"
        f"s=socket.create_server(('0.0.0.0',{port}))\n"
        "print('up',flush=True)\n"
        "while True:\n c,a=s.accept(); c.sendall(a[0].encode()); c.close()\n"
    )
    made = Talker(namespace, code)
    assert made.greeting == "up"
    return made


def asks(target: str, port: int) -> str:
    """A program that prints what the server said, or fails within a second."""
    return f"import socket;s=socket.create_connection(('{target}',{port}),1);print(s.recv(99).decode())"


@pytest.mark.parametrize("mode", ["routed", "bridged"])
@pytest.mark.parametrize("bridge_nf", ["0", "1"])
def test_overlay_joins_containers_of_all_hosts_over_both_families(
    pair: NetHosts, mode: str, bridge_nf: str
) -> None:
    for host in pair.hosts.values():
        for name in ("iptables", "ip6tables"):
            host.run("sh", "-c", f"echo {bridge_nf} > /proc/sys/net/bridge/bridge-nf-call-{name}")
    spec = overlay("one", 1, ipv6=True, mode=mode)
    pair.carry({1: spec})
    first, second = pair.container(1, 0, 1), pair.container(1, 1, 1)
    far = pair.container(2, 0, 1)
    for target in (inner4(spec, 1, 1), inner4(spec, 2, 0), inner6(spec, 1, 1), inner6(spec, 2, 0), OUTSIDE):
        assert reaches(pair.hosts[1], first, target), target
    assert reaches(pair.hosts[2], far, inner4(spec, 1, 1))
    server = serve(pair.hosts[2].space(far), 80)
    try:
        seen = pair.hosts[1].python_inside(second, asks(inner4(spec, 2, 0), 80)).stdout.strip()
        assert seen == inner4(spec, 1, 1)
    finally:
        server.close()
    links = json.loads(pair.hosts[1].run("ip", "-j", "-s", "link", "show", vxlan_name(network_id(1))).stdout)
    assert links[0]["mtu"] == 1450 and links[0]["stats64"]["tx"]["bytes"] > 0


def test_bridged_overlay_carries_broadcasts_to_other_hosts(pair: NetHosts) -> None:
    spec = overlay("one", 1, mode="bridged")
    pair.carry({1: spec})
    near, far = pair.container(1, 0, 1), pair.container(2, 0, 1)
    code = (
        "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',9));s.settimeout(5);"
        "print('up',flush=True);print(s.recvfrom(9)[1][0],flush=True)"
    )
    listener = Talker(pair.hosts[2].space(far), code)
    shout = (
        "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
        "s.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1);s.sendto(b'x',('10.129.255.255',9))"
    )
    with contextlib.closing(listener):
        assert listener.greeting == "up"
        pair.hosts[1].python_inside(near, shout)
        assert listener.line() == inner4(spec, 1, 0)


def test_networks_are_apart_both_ways_and_internal_ones_have_no_way_out(pair: NetHosts) -> None:
    specs = {1: overlay("one", 1), 2: overlay("two", 2, mode="bridged"), 3: BRIDGE, 4: INTERNAL}
    pair.carry(specs)
    host = pair.hosts[1]
    feet = {n: pair.container(1, n, n) for n in specs}
    apart = [(n, m) for n in specs for m in specs if n != m]
    heard = side_by_side(lambda n, m: reaches(host, feet[n], inner4(specs[m], 1, m)), apart)
    assert not any(heard.values()), heard
    for n, instance in feet.items():
        assert reaches(host, instance, OUTSIDE) is (n != 4)
        assert not pair.outside(
            "busybox", "ping", "-c1", "-W1", inner4(specs[n], 1, n), check=False
        ).stdout.count("1 packets received")


def test_outside_sees_the_hosts_address(pair: NetHosts) -> None:
    server = serve(f"/run/netns/{pair.switch}", 7000)
    try:
        pair.carry({1: overlay("one", 1)})
        for index, network in ((0, "bridge"), (1, 1)):
            instance = pair.container(1, index, network)
            said = pair.hosts[1].python_inside(instance, asks(OUTSIDE, 7000)).stdout.strip()
            assert said == address(1)
    finally:
        server.close()


@pytest.mark.parametrize("bridge_nf", ["0", "1"])
@pytest.mark.parametrize("network", ["bridge", 1, 2])
def test_published_port_answers_everyone_it_should_and_nobody_else(
    pair: NetHosts, network: int | str, bridge_nf: str
) -> None:
    host = pair.hosts[1]
    host.run("sh", "-c", f"echo {bridge_nf} > /proc/sys/net/bridge/bridge-nf-call-iptables")
    specs = {1: overlay("one", 1), 2: overlay("two", 2, mode="bridged")}
    pair.carry(specs)
    server_at, neighbour = pair.container(1, 0, network), pair.container(1, 1, network)
    inner = "172.29.0.10" if isinstance(network, str) else inner4(specs[network], 1, 0)
    pair.publish(
        1,
        server_at,
        inner,
        BoundPort(target=80, published=8080, protocol="tcp"),
        BoundPort(target=80, published=8081, protocol="tcp", host_ip="127.0.0.1"),
    )
    server = serve(host.space(server_at), 80)
    try:
        assert pair.python_outside(asks(address(1), 8080)).stdout.strip() == OUTSIDE
        assert host.python(asks("127.0.0.1", 8080)).stdout
        assert host.python(asks("127.0.0.1", 8081)).stdout
        assert host.python(asks(address(1), 8080)).stdout
        assert host.python_inside(neighbour, asks(address(1), 8080)).stdout
        assert host.python_inside(server_at, asks(address(1), 8080)).stdout
        assert pair.python_outside(asks(address(1), 8081), check=False).returncode != 0
        host.call("unpublish", server_at)
        assert pair.python_outside(asks(address(1), 8080), check=False).returncode != 0
    finally:
        server.close()


def test_port_in_use_is_refused_and_nothing_changes(pair: NetHosts) -> None:
    host = pair.hosts[1]
    pair.carry({})
    one, two = pair.container(1, 0, "bridge"), pair.container(1, 1, "bridge")
    foreign = serve(f"/run/netns/{host.netns}", 9000)
    try:
        with pytest.raises(RuntimeError, match="InUse: port 9000/tcp is in use by another program"):
            pair.publish(1, one, "172.29.0.10", BoundPort(target=80, published=9000, protocol="tcp"))
    finally:
        foreign.close()
    pair.publish(1, one, "172.29.0.10", BoundPort(target=80, published=9001, protocol="tcp"))
    before = host.run("nft", "list", "ruleset").stdout
    with pytest.raises(RuntimeError, match="InUse: port 9001/tcp is already published"):
        pair.publish(1, two, "172.29.0.11", BoundPort(target=80, published=9001, protocol="tcp"))
    assert host.run("nft", "list", "ruleset").stdout == before


def test_a_stranger_cannot_send_into_our_tunnels(pair: NetHosts) -> None:
    spec = overlay("one", 1)
    pair.carry({1: spec})
    pair.container(1, 0, 1)
    host = pair.hosts[1]
    packet = "bytes([8,0,0,0]) + (4097).to_bytes(3,'big') + bytes(1) + bytes(60)"
    send = f"socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto({packet},('{address(1)}',4789))"
    pair.python_outside(f"import socket;{send}")
    links = json.loads(host.run("ip", "-j", "-s", "link", "show", vxlan_name(network_id(1))).stdout)
    assert links[0]["stats64"]["rx"]["packets"] == 0


def test_host_keeps_the_way_out_that_a_router_tells_it(pair: NetHosts) -> None:
    """It forwards now, and hosts that do hear no router by themselves."""
    host = pair.hosts[1]
    host.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1", "net.ipv6.conf.eth0.disable_ipv6=0")
    pair.carry({1: overlay("one", 1, ipv6=True)})
    assert host.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout.strip() == "1"
    assert host.run("sysctl", "-n", f"net.ipv6.conf.{bridge_name(network_id(1))}.accept_ra").stdout == "0\n"
    router = "fe80::1"
    advert = icmp6(router, "ff02::1", 134, struct.pack(">BBHII", 64, 0, 1800, 0, 0))
    code = "import socket,sys; s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind(('p1',0)); "
    frame = ether("02:00:00:00:00:01", 0x86DD, advert, "33:33:00:00:00:01")
    pair.python_outside(f"{code}s.send(bytes.fromhex({frame.hex()!r}))")
    shown = wait_until(lambda: host.run("ip", "-6", "route", "show", "default").stdout, deadline=10)
    assert f"via {router} dev eth0 proto ra" in shown


def test_spoofed_source_goes_nowhere(pair: NetHosts) -> None:
    spec = overlay("one", 1)
    pair.carry({1: spec})
    liar, victim = pair.container(1, 0, 1), pair.container(1, 1, 1)
    host = pair.hosts[1]
    assert reaches(host, liar, inner4(spec, 1, 1)) and victim
    host.inside(liar, "ip", "address", "add", inner4(spec, 1, 7), "dev", "eth0")
    done = host.inside(
        liar, "busybox", "ping", "-c1", "-W1", "-I", inner4(spec, 1, 7), inner4(spec, 1, 1), check=False
    )
    assert done.returncode != 0


def test_killed_agent_comes_back_and_changes_nothing(pair: NetHosts) -> None:
    specs = {1: overlay("one", 1, ipv6=True), 2: overlay("two", 2, mode="bridged"), 3: BRIDGE}
    pair.carry(specs)
    host = pair.hosts[1]
    near, far = pair.container(1, 0, 1, 2, 3), pair.container(2, 0, 1, 2)
    pair.publish(1, near, inner4(specs[1], 1, 0), BoundPort(target=80, published=8080, protocol="tcp"))
    host.kill()
    assert reaches(host, near, inner4(specs[1], 2, 0)) and far
    host.start()
    pair.apply(1)
    assert host.call("mutations") == 0
    assert host.call("namespaces") == [near]
    pair.container(1, 0, 1, 2, 3)
    assert host.call("mutations") == 0
    assert reaches(host, near, inner4(specs[2], 2, 0))


def test_everything_goes_and_foreign_objects_stay(pair: NetHosts) -> None:
    host = pair.hosts[1]
    host.run("ip", "link", "add", "flbforeign", "type", "bridge")
    host.run("nft", "add", "table", "ip", "flota")
    host.run("ip", "route", "add", "192.0.2.0/24", "dev", "eth0")

    def seen() -> str:
        nft = host.run("nft", "list", "tables").stdout
        listing = (host.run("ip", "-br", *words).stdout for words in (("link",), ("route",), ("-6", "route")))
        return "".join(
            line for text in (*listing, nft) for line in sorted(text.splitlines(True)) if "eth0@" not in line
        )

    before = seen()
    pair.carry({1: overlay("one", 1, ipv6=True), 2: overlay("two", 2, mode="bridged")})
    instance = pair.container(1, 0, 1, 2, "bridge")
    assert seen() != before
    host.call("drop_namespace", instance)
    host.call("drop_namespace", InstanceId(instance))
    plan = pair.plan(1)
    host.call("apply", msgspec.structs.replace(plan, networks={}))
    rest = seen().replace("table inet flota\n", "").replace("table bridge flota\n", "")
    assert rest == before
    assert host.call("namespaces") == []


def test_contradicting_plan_is_refused_with_all_problems(pair: NetHosts) -> None:
    pair.carry({1: overlay("one", 1)})
    pair.networks[1][2] = NetworkSpec(
        name="two", subnets=(Subnet(cidr="10.129.3.0/24"),), options={"mtu": "67"}
    )
    with pytest.raises(RuntimeError, match=r"two\.options\.mtu"):
        pair.apply(1)
    pair.networks[1][2] = NetworkSpec(name="two", driver="bridge", subnets=(Subnet(cidr="10.129.3.0/24"),))
    with pytest.raises(RuntimeError, match="overlaps"):
        pair.apply(1)


@contextlib.contextmanager
def machine(hosts: NetHosts, link: str, number: int) -> Iterator[str]:
    """The namespace of one on another link of host 1, its router."""
    name = f"{hosts.name}m{number}"
    ip("netns", "add", name)
    hosts.hosts[1].run("ip", "link", "add", link, "type", "veth", "peer", "name", "lan0", "netns", name)
    try:
        hosts.hosts[1].run("ip", "address", "add", f"192.0.{number}.1/24", "dev", link)
        hosts.hosts[1].run("ip", "link", "set", link, "up")
        ip("-n", name, "address", "add", f"192.0.{number}.2/24", "dev", "lan0")
        ip("-n", name, "link", "set", "lan0", "up")
        ip("-n", name, "route", "add", "default", "via", f"192.0.{number}.1")
        yield f"/run/netns/{name}"
    finally:
        ip("netns", "del", name)


def is_routed(namespace: str) -> bool:
    """To the other side of its router."""
    ping = ("busybox", "ping", "-c1", "-W1", OUTSIDE)
    return run_in(namespace, ping, check=False, timeout=20).returncode == 0


@pytest.mark.parametrize("before", [0, 1])
def test_host_that_did_not_route_between_its_links_does_not_begin_to(before: int) -> None:
    with net_hosts(1, "flur") as hosts, machine(hosts, "eth1", 1) as first:
        host = hosts.hosts[1]
        host.run("sh", "-c", f"echo {before} > /proc/sys/net/ipv4/ip_forward")
        ip("-n", hosts.switch, "route", "add", "192.0.0.0/16", "via", address(1))
        hosts.carry({1: overlay("one", 1)})
        box = hosts.container(1, 0, 1)
        assert reaches(host, box, OUTSIDE)
        assert is_routed(first) is bool(before)
        with machine(hosts, "lxdbr0", 2) as later:
            assert is_routed(later), "whoever makes a link later finds a host that routes"
        host.kill()
        host.start()
        hosts.apply(1)
        assert host.call("mutations") == 0
        assert is_routed(first) is bool(before)
