"""Connections to published ports while containers come, go and change places."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from model.ids import InstanceId
from model.spec import NetworkSpec, Subnet
from model.status import BoundPort, Protocol
from net.host import EndpointRequest
from tests.support.nethosts import OUTSIDE, NetHosts, address, inner4, inner6, net_hosts, network_id
from tests.support.talkers import Talker, answers, dialogue, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel

LAN = NetworkSpec(
    name="lan", driver="bridge", subnets=(Subnet(cidr="10.201.0.0/16"), Subnet(cidr="fd00:b::/64"))
)
SIX = "2001:db8:7::11"
"""An IPv6 address of the host."""
FROM_A_PORT = """
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.settimeout(1)
s.bind(("", 5555))
s.connect((sys.argv[1], 80))
print(s.recv(99).decode().split()[0], flush=True)
for line in sys.stdin: break
"""

LATE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind(("", 80))
print("up", flush=True)
for line in sys.stdin:
    s.sendto(b"late", (sys.argv[1], int(line)))
    print("sent", flush=True)
"""
"""A container that speaks from its port 80 first."""
KEPT = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.settimeout(0.5)
s.bind(("", 5555))
print("up", flush=True)
for line in sys.stdin:
    try:
        if line == "?\\n": s.sendto(b"?", (sys.argv[1], 80))
        said, address = s.recvfrom(99)
        print(said.decode().split()[0], address[1], flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""
"""A client with a port of its own; on `?` it asks, otherwise it only listens."""


class Stall:
    """One host with a network; the outside asks its published ports."""

    def __init__(self, hosts: NetHosts) -> None:
        self.hosts = hosts
        self.host = hosts.hosts[1]
        self.outside = f"/run/netns/{hosts.switch}"
        self.talkers: list[Talker] = []

    def container(self, index: int) -> InstanceId:
        """With a server that says its index."""
        made = self.hosts.container(1, index, 1)
        self.talkers.append(server(str(self.host.run_dir / "ns" / made), str(index)))
        return made

    def publish(self, instance: InstanceId, index: int, protocol: Protocol, **words: object) -> None:
        port = msgspec.structs.replace(BoundPort(target=80, published=80, protocol=protocol), **words)
        self.hosts.publish(1, instance, inner4(LAN, 1, index), port, ipv6=inner6(LAN, 1, index))

    def client(self, kind: str, target: str, space: str = "") -> Talker:
        self.talkers.append(dialogue(space or self.outside, kind, target))
        return self.talkers[-1]


@pytest.fixture
def stall() -> Iterator[Stall]:
    with net_hosts(1, "flpf") as hosts:
        hosts.carry({1: LAN})
        hosts.hosts[1].run("ip", "address", "add", f"{SIX}/64", "dev", "eth0", "nodad")
        hosts.outside("ip", "address", "add", "2001:db8:7::1/64", "dev", "br0", "nodad")
        made = Stall(hosts)
        try:
            yield made
        finally:
            for talker in made.talkers:
                talker.close()


def hears(client: Talker, name: str) -> bool:
    return client.say("?").split()[0] == name


@pytest.mark.parametrize("target", [address(1), SIX])
def test_datagrams_of_a_kept_socket_go_to_the_container_that_has_the_port_now(
    stall: Stall, target: str
) -> None:
    first, second = stall.container(1), stall.container(2)
    stall.publish(first, 1, "udp")
    clients = [stall.client("udp", target), stall.client("udp", target, f"/run/netns/{stall.host.netns}")]
    assert [hears(client, "1") for client in clients] == [True, True]
    stall.host.call("unpublish", first)
    stall.publish(second, 2, "udp")
    for client in clients:
        wait_until(lambda c=client: hears(c, "2"), deadline=5, what="the second")
    stall.host.call("drop_namespace", second)
    stall.publish(first, 1, "udp")
    for client in clients:
        wait_until(lambda c=client: hears(c, "1"), deadline=5, what="the first again")


def speaker(stall: Stall, instance: InstanceId, target: str) -> Talker:
    """A container's own program, which speaks to the client outside; by `target`'s family."""
    client = "2001:db8:7::1" if ":" in target else OUTSIDE
    stall.talkers.append(Talker(str(stall.host.run_dir / "ns" / instance), LATE, client))
    return stall.talkers[-1]


def listener(stall: Stall, target: str) -> Talker:
    stall.talkers.append(Talker(stall.outside, KEPT, target))
    return stall.talkers[-1]


@pytest.mark.parametrize("target", [address(1), SIX])
@pytest.mark.parametrize("taken", [False, True])
def test_late_datagram_of_who_had_a_port_holds_no_client_fast(stall: Stall, target: str, taken: bool) -> None:
    """`taken`: another has the port already when it comes."""
    first, second = stall.hosts.container(1, 1, 1), stall.container(2)
    late, kept = speaker(stall, first, target), listener(stall, target)
    if taken:
        stall.publish(second, 2, "udp")
    assert late.say("5555") == "sent"
    assert kept.say("listen").startswith("late"), "it may speak"
    if not taken:
        stall.publish(second, 2, "udp")
    wait_until(lambda: kept.say("?").startswith("2 80"), deadline=5, what="the second")


@pytest.mark.parametrize("target", [address(1), SIX])
def test_container_speaks_from_its_own_published_port_and_from_no_others(stall: Stall, target: str) -> None:
    first, second = stall.hosts.container(1, 1, 1), stall.hosts.container(1, 2, 1)
    stall.publish(first, 1, "udp")
    kept = listener(stall, target)
    assert speaker(stall, first, target).say("5555") == "sent" and kept.say("listen") == "late 80"
    assert speaker(stall, second, target).say("5555") == "sent"
    assert int(kept.say("listen").removeprefix("late ")) >= 32768


def test_datagrams_of_a_socket_that_was_there_first_reach_the_container(stall: Stall) -> None:
    """The kernel tracks what nobody answers, too, and each datagram keeps that alive."""
    client = stall.client("udp", address(1))
    assert client.say("?") in ("TimeoutError", "ConnectionRefusedError")
    stall.publish(stall.container(1), 1, "udp")
    wait_until(lambda: hears(client, "1"), deadline=5, what="the container")


def test_datagrams_stop_where_a_client_is_no_longer_allowed(stall: Stall) -> None:
    instance = stall.container(1)
    stall.publish(instance, 1, "udp")
    client = stall.client("udp", address(1))
    assert hears(client, "1")
    stall.publish(instance, 1, "udp", allow=("192.0.2.0/24",))
    wait_until(lambda: client.say("?").endswith("Error"), deadline=5, what="silence")
    stall.publish(instance, 1, "udp")
    wait_until(lambda: hears(client, "1"), deadline=5, what="an answer")


def test_connections_stand_while_other_ports_and_containers_change(stall: Stall) -> None:
    first, second = stall.container(1), stall.container(2)
    stall.publish(first, 1, "tcp")
    held = [stall.client("tcp", address(1)), stall.client("tcp", SIX)]
    kept = stall.client("udp", address(1))
    assert kept.say("?").endswith("Error"), "UDP is not published"
    stall.publish(second, 2, "udp", published=81)
    stall.publish(first, 1, "tcp", published=82)
    stall.host.call("drop_namespace", second)
    stall.host.run("nft", "delete", "table", "inet", "flota")
    wait_until(lambda: stall.host.call("drifts"), deadline=5, what="the repair")
    assert [client.say("after") for client in held] == ["after", "after"]
    stall.host.call("unpublish", first)
    assert [client.say("idle") for client in held] == ["idle", "idle"]


def from_a_port(stall: Stall) -> Talker:
    """A connection of the client's port 5555, whose first answer is the greeting."""
    return Talker(stall.outside, FROM_A_PORT, address(1))


def test_new_connection_of_the_same_client_port_goes_to_the_new_holder(stall: Stall) -> None:
    """The client is cut off while the first container goes, so that it never hears of it."""
    first, second = stall.container(1), stall.container(2)
    stall.publish(first, 1, "tcp")
    client = from_a_port(stall)
    assert client.greeting == "1"
    subprocess.run(["ip", "-n", stall.hosts.switch, "link", "set", "p1", "down"], check=True)
    client.close()
    stall.host.call("drop_namespace", first)
    stall.publish(second, 2, "tcp")
    subprocess.run(["ip", "-n", stall.hosts.switch, "link", "set", "p1", "up"], check=True)

    def asks() -> str:
        talker = from_a_port(stall)
        talker.close()
        return talker.greeting

    wait_until(lambda: asks() == "2", deadline=5, what="the second container")


def test_container_with_a_fixed_address_is_reached_again_after_its_restart(stall: Stall) -> None:
    """By the sockets that asked it before, over both protocols, and with a MAC of its own."""
    instance = stall.container(1)
    stall.publish(instance, 1, "udp")
    outside, host = stall.client("udp", address(1)), f"/run/netns/{stall.host.netns}"
    near = stall.client("udp", inner4(LAN, 1, 1), host)
    assert hears(outside, "1") and hears(near, "1")
    stall.talkers.pop(0).close()
    stall.host.call("drop_namespace", instance)
    stall.host.call("open_namespace", instance)
    foot = EndpointRequest(
        instance=instance,
        network=network_id(1),
        ifname="eth0",
        ipv4=inner4(LAN, 1, 1),
        ipv6=inner6(LAN, 1, 1),
        mac="02:00:00:00:00:99",
        default_route=True,
    )
    stall.host.call("attach", foot)
    stall.publish(instance, 1, "udp")
    stall.talkers.append(server(str(stall.host.run_dir / "ns" / instance), "again"))
    for client in (outside, near):
        wait_until(lambda c=client: hears(c, "again"), deadline=5, what="the container")
    assert answers(host, "tcp", [inner4(LAN, 1, 1)])[0][0] == "again"
