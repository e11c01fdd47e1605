"""Nobody speaks for another: forged frames of containers, forged packets and tunnels of the LAN are dropped
and counted, on every kind of network and over both families.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Iterator

import pytest

from model.spec import NetworkSpec, Subnet
from model.status import BoundPort
from net.naming import bridge_name, endpoint_mac, link_local, veth_name, vxlan_name
from tests.support.hostprocess import HostProcess
from tests.support.nethosts import NetHosts, address, inner4, inner6, net_hosts, network_id, overlay
from tests.support.packets import arp, ether, icmp6, ip4, ip6, packed, raw_mac, tagged, udp
from tests.support.talkers import Talker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel
NETWORK = network_id(1)
ROUTED, BRIDGED = overlay("one", 1, ipv6=True), overlay("one", 1, ipv6=True, mode="bridged")
LOCAL = NetworkSpec(
    name="one", driver="bridge", subnets=(Subnet(cidr="10.201.0.0/16"), Subnet(cidr="fd00:77::/64"))
)
SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]: s.send(bytes.fromhex(frame))
"""
SEND_IP = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 0))
"""
SEND_UDP = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 4789))
"""
LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9)); s.settimeout(0.5)
print("up", flush=True)
for line in sys.stdin:
    try: print(s.recvfrom(99)[1][0], flush=True)
    except OSError: print("nothing", flush=True)
"""


class Ground:
    """On host 1 a container that forges (1) and one that is to believe it (2)."""

    def __init__(self, hosts: NetHosts, spec: NetworkSpec) -> None:
        self.hosts, self.spec, self.host = hosts, spec, hosts.hosts[1]
        hosts.carry({1: spec})
        self.forger, self.victim = hosts.container(1, 1, 1), hosts.container(1, 2, 1)
        self.mac, self.victims_mac = (endpoint_mac(i, NETWORK) for i in (self.forger, self.victim))
        self.ip4, self.victims4 = (inner4(spec, 1, i) for i in (1, 2))
        self.ip6, self.victims6 = (inner6(spec, 1, i) for i in (1, 2))
        subnet = ipaddress.ip_network(spec.subnets[0].cidr)
        self.gateway = str(subnet[1])

    def send(self, *frames: bytes) -> None:
        self.host.python_inside(self.forger, SEND, "eth0", *(f.hex() for f in frames))

    def pings(self, instance: str, target: str) -> bool:
        words = ("busybox", "ping", "-c1", "-W1", target)
        return self.host.inside(instance, *words, check=False).returncode == 0

    def meets(self, instance: str, target: str) -> None:
        """What is sent before the kernel has taken note that a new link is up, which is a matter of a busy
        machine's turns, is lost."""
        wait_until(lambda: self.pings(instance, target), deadline=10, what=f"an answer of {target}")

    def believes(self) -> dict[str, str]:
        """Where the victim believes its neighbours to be. Without link-local addresses that nobody forged:
        neighbours ask by them, some seconds after they have heard something, whether it is still there."""
        table = json.loads(self.host.inside(self.victim, "ip", "-j", "neigh", "show").stdout)
        found = {entry["dst"]: entry["lladdr"] for entry in table if "lladdr" in entry}
        own = link_local(self.mac)
        return {a: m for a, m in found.items() if a[:4] != "fe80" or (m == self.mac) is not (a == own)}

    def knows(self) -> str:
        """Where the bridge believes the victim's MAC to be."""
        table = self.host.run("bridge", "fdb", "show", "br", bridge_name(NETWORK)).stdout
        return next((line.split()[2] for line in table.splitlines() if line.startswith(self.victims_mac)), "")


@pytest.fixture(params=[ROUTED, BRIDGED, LOCAL], ids=["routed", "bridged", "bridge"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with net_hosts(1, "flsp") as hosts:
        yield Ground(hosts, request.param)


def dropped(host: HostProcess, family: str) -> int:
    """Packets that the table's counted rules dropped."""
    listing = json.loads(host.run("nft", "-j", "list", "table", family, "flota").stdout)["nftables"]
    expressions = (entry["rule"]["expr"] for entry in listing if "rule" in entry)
    return sum(e["counter"]["packets"] for one in expressions for e in one if "counter" in e)


def counts_one(host: HostProcess, family: str, before: int, what: str) -> None:
    """Counting is the kernel's business after the sender has been told that all is sent, on any processor."""
    wait_until(lambda: dropped(host, family) > before, deadline=5, what=f"{what} is dropped")
    assert dropped(host, family) == before + 1, what


def forgeries(g: Ground) -> dict[str, bytes]:
    own = link_local(g.mac)
    advert = bytes([0x20, 0, 0, 0]) + packed(g.victims6) + b"\x02\x01" + raw_mac(g.mac)
    return {
        "ARP for the gateway": ether(g.mac, 0x806, arp(g.mac, g.gateway)),
        "ARP for a neighbour": ether(g.mac, 0x806, arp(g.mac, g.victims4)),
        "neighbour advertisement for a neighbour": ether(
            g.mac, 0x86DD, icmp6(g.ip6, "ff02::1", 136, advert), "33:33:00:00:00:01"
        ),
        "router advertisement": ether(
            g.mac, 0x86DD, icmp6(own, "ff02::1", 134, bytes(12)), "33:33:00:00:00:01"
        ),
        "redirect": ether(g.mac, 0x86DD, icmp6(own, g.victims6, 137, bytes(36)), g.victims_mac),
        "DHCP offer": ether(g.mac, 0x800, ip4(g.ip4, "255.255.255.255", udp(67, 68))),
        "DHCPv6 advertisement": ether(g.mac, 0x86DD, ip6(own, g.victims6, udp(547, 546), 17), g.victims_mac),
        "IPv4 source": ether(g.mac, 0x800, ip4(g.victims4, g.gateway, udp(9, 9))),
        "IPv6 source": ether(g.mac, 0x86DD, ip6(g.victims6, "ff02::1", udp(9, 9), 17)),
        "link-local source": ether(g.mac, 0x86DD, ip6("fe80::1", "ff02::1", udp(9, 9), 17)),
        "MAC with an own address": ether(g.victims_mac, 0x800, ip4(g.ip4, g.gateway, udp(9, 9))),
        "MAC before it has an address": ether(
            g.victims_mac, 0x800, ip4("0.0.0.0", "255.255.255.255", udp(68, 67))
        ),
        "MAC in a probe": ether(g.victims_mac, 0x806, arp(g.victims_mac, "0.0.0.0")),
        "MAC in some other protocol": ether(g.victims_mac, 0x88B5, bytes(46)),
    }


def test_forged_frames_of_a_container_are_dropped_and_counted(ground: Ground) -> None:
    for target in (ground.victims4, ground.victims6):
        ground.meets(ground.forger, target)
    port = ground.knows()
    for what, frame in forgeries(ground).items():
        before = dropped(ground.host, "bridge")
        ground.send(frame)
        counts_one(ground.host, "bridge", before, what)
        assert ground.knows() == port, f"{what}: the bridge believes it"
    assert port == veth_name(ground.victim, NETWORK)
    for target in (ground.victims4, ground.victims6):
        assert ground.pings(ground.forger, target), target


@pytest.mark.parametrize("times", [1, 2])
def test_forged_frames_behind_a_tag_are_dropped_and_counted(ground: Ground, times: int) -> None:
    """The kernel takes a tag of VLAN 0 off, wherever the frame arrives, and one behind it as well."""
    for target in (ground.ip4, ground.ip6, ground.gateway):
        ground.meets(ground.victim, target)
    believed, port = ground.believes(), ground.knows()
    assert believed[ground.gateway]
    for what, frame in forgeries(ground).items():
        before = dropped(ground.host, "bridge")
        ground.send(tagged(frame, times))
        counts_one(ground.host, "bridge", before, what)
        assert ground.knows() == port and ground.believes() == believed, what


def test_own_frames_pass_uncounted(ground: Ground) -> None:
    """What looks alike and is allowed: own addresses, a probe, a question of DHCP, duplicate detection."""
    g, own = ground, link_local(ground.mac)
    advert = bytes([0x20, 0, 0, 0]) + packed(g.ip6) + b"\x02\x01" + raw_mac(g.mac)
    ask = bytes(4) + packed(g.ip6)
    before = dropped(g.host, "bridge")
    g.send(
        ether(g.mac, 0x806, arp(g.mac, g.ip4)),
        ether(g.mac, 0x806, arp(g.mac, "0.0.0.0")),
        ether(g.mac, 0x800, ip4("0.0.0.0", "255.255.255.255", udp(68, 67))),
        ether(g.mac, 0x86DD, icmp6(g.ip6, "ff02::1", 136, advert), "33:33:00:00:00:01"),
        ether(g.mac, 0x86DD, icmp6(own, "ff02::2", 133, bytes(4)), "33:33:00:00:00:02"),
        ether(g.mac, 0x86DD, icmp6("::", "ff02::1", 135, ask), "33:33:00:00:00:01"),
    )
    assert dropped(g.host, "bridge") == before


@pytest.fixture
def lan() -> Iterator[Ground]:
    with net_hosts(1, "flsl") as hosts:
        yield Ground(hosts, ROUTED)


def outside(lan: Ground, code: str, *words: str) -> None:
    lan.hosts.python_outside(code, *words)


def test_tunnel_frames_of_no_peer_are_dropped_and_counted(lan: Ground) -> None:
    vxlan = struct.pack(">II", 0x08000000, (4096 + 1) << 8)
    tunnel = vxlan_name(NETWORK)
    gateway = json.loads(lan.host.run("ip", "-j", "link", "show", tunnel).stdout)[0]["address"]
    listener = Talker(str(lan.host.run_dir / "ns" / lan.victim), LISTEN)
    try:
        for inner in (
            ether(lan.mac, 0x800, ip4("10.129.9.9", lan.victims4, udp(9, 9)), gateway),
            ether(lan.mac, 0x86DD, ip6("fd00:1::909", lan.victims6, udp(9, 9), 17), gateway),
        ):
            before = dropped(lan.host, "inet")
            outside(lan, SEND_UDP, (vxlan + inner).hex(), address(1))
            wait_until(lambda before=before: dropped(lan.host, "inet") == before + 1, deadline=5)  # type: ignore[misc]
        assert listener.say("?") == "nothing"
    finally:
        listener.close()


@pytest.mark.parametrize("mode", ["routed", "bridged"])
def test_container_can_not_speak_by_its_hosts_tunnels(mode: str) -> None:
    """Its packet to another host would leave with its own host's address, a peer's; of networks that this
    host does not carry its own tunnels know nothing. The kernel takes tunnelled packets at all addresses of
    the other host, of which its peers know one."""
    second = "198.18.7.99"
    with net_hosts(2, "flst") as hosts:
        hosts.carry({1: ROUTED})
        hosts.networks[2][2] = overlay("two", 2, mode=mode)
        hosts.apply(2)
        hosts.hosts[2].run("ip", "address", "add", f"{second}/24", "dev", "eth0")
        forger, victim = hosts.container(1, 1, 1), hosts.container(2, 2, 2)
        spec = hosts.networks[2][2]
        source, target = inner4(spec, 2, 9), inner4(spec, 2, 2)
        shown = json.loads(hosts.hosts[2].run("ip", "-j", "link", "show", vxlan_name(network_id(2))).stdout)
        mac = shown[0]["address"] if mode == "routed" else endpoint_mac(victim, network_id(2))
        frame = ether("02:00:00:00:00:99", 0x800, ip4(source, target, udp(9, 9)), mac)
        forged = (struct.pack(">II", 0x08000000, (4096 + 2) << 8) + frame).hex()
        listener = Talker(str(hosts.hosts[2].run_dir / "ns" / victim), LISTEN)
        try:
            for end, who_drops in ((address(2), 1), (second, 2)):
                before = dropped(hosts.hosts[who_drops], "inet")
                hosts.hosts[1].python_inside(forger, SEND_UDP, forged, end)
                assert listener.say("?") == "nothing", end
                counts_one(hosts.hosts[who_drops], "inet", before, end)
            hosts.hosts[1].python(SEND_UDP, forged, address(2))
            assert listener.say("?") == source, "the packet is good, when a host sends it"
        finally:
            listener.close()


def test_packet_of_the_lan_with_a_containers_address_to_the_host_is_dropped_and_counted(lan: Ground) -> None:
    listener = Talker(f"/run/netns/{lan.host.netns}", LISTEN)
    try:
        outside(lan, SEND_IP, ip4("198.18.7.1", address(1), udp(7, 9)).hex(), address(1))
        assert listener.say("?") == "198.18.7.1"
        before = dropped(lan.host, "inet")
        outside(lan, SEND_IP, ip4(lan.ip4, address(1), udp(7, 9)).hex(), address(1))
        assert listener.say("?") == "nothing"
        counts_one(lan.host, "inet", before, "what the LAN forged")
    finally:
        listener.close()


def test_packet_of_the_lan_with_a_containers_address_is_dropped_and_counted(lan: Ground) -> None:
    listener = Talker(str(lan.host.run_dir / "ns" / lan.victim), LISTEN)
    port = BoundPort(target=9, published=9009, protocol="udp", host_ip="")
    lan.hosts.publish(1, lan.victim, lan.victims4, port)
    try:
        outside(lan, SEND_IP, ip4("198.18.7.1", address(1), udp(7, 9009)).hex(), address(1))
        assert listener.say("?") == "198.18.7.1", "published"
        before = dropped(lan.host, "inet")
        outside(lan, SEND_IP, ip4(lan.ip4, address(1), udp(7, 9009)).hex(), address(1))
        wait_until(lambda: dropped(lan.host, "inet") == before + 1, deadline=5)
        assert listener.say("?") == "nothing"
        before = dropped(lan.host, "inet")
        outside(lan, "import os,sys; os.system('ip route add 10.129.0.0/16 via ' + sys.argv[1])", address(1))
        outside(lan, SEND_IP, ip4("198.18.7.1", lan.victims4, udp(7, 9)).hex(), lan.victims4)
        wait_until(lambda: dropped(lan.host, "inet") == before + 1, deadline=5)
        assert listener.say("?") == "nothing"
    finally:
        listener.close()
