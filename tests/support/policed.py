"""Containers web, api and stranger on hosts that are namespaces, and policies between them."""

from __future__ import annotations

from msgspec.structs import replace

from model.ids import InstanceId
from model.policy import Party, PolicyPeer, PolicyPort, PolicyRule, PolicySpec, Selector
from model.spec import NetworkSpec, Subnet
from net.naming import endpoint_mac, link_local
from net.policy import HostPolicies, Place, endpoint_key, host_policies
from tests.support import forkserver
from tests.support.nethosts import NetHosts, inner4, inner6, network_id, overlay, vip_ranges
from tests.support.talkers import Talker, server

WEB, API, STRANGER = 0, 1, 2
ASK = """
import socket, sys
kind, target, port, *patience = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET,
                  socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(float(patience[0]) if patience else 1.2)
s.connect(socket.getaddrinfo(target, int(port))[0][4])
if kind == "udp": s.send(b"?")
print(s.recv(99).decode().split()[0])
"""
SHOUT = """
import socket, sys
target, patience = sys.argv[1], float(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
if ":" not in target: s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.settimeout(patience)
s.sendto(b"?", socket.getaddrinfo(target, 80)[0][4])
print(s.recvfrom(99)[0].decode().split()[0])
"""
ANSWER, SILENCE = 1.2, 0.4
"""Seconds to wait for an answer that should come, longer than TCP takes to ask again; and for none."""
PORT_80 = (PolicyPort(port=80), PolicyPort(port=80, protocol="udp"))
INGRESS = PolicySpec(
    name="web-in",
    selects=Selector(container="web"),
    ingress=(PolicyRule(peers=(PolicyPeer(service="api"),), ports=PORT_80),),
)
NAMES = {WEB: ("web", ""), API: ("api.1", "api"), STRANGER: ("stranger", "")}


class Policed:
    """Containers web, api and stranger on each of two hosts, on network 1."""

    def __init__(self, hosts: NetHosts, spec: NetworkSpec) -> None:
        self.hosts, self.spec = hosts, spec
        hosts.carry({1: spec})
        self.ids: dict[tuple[int, int], InstanceId] = {}
        self._servers: list[Talker] = []

    def party(self, number: int, index: int) -> Party:
        name, service = NAMES[index]
        return Party(
            name=name,
            network=network_id(1),
            network_name=self.spec.name,
            service=service,
            ipv4=inner4(self.spec, number, index),
            ipv6=inner6(self.spec, number, index),
        )

    def policies(
        self, number: int, *specs: PolicySpec, peers: tuple[int, ...] = (WEB, API, STRANGER)
    ) -> HostPolicies:
        parties = tuple(self.party(n, i) for n in self.hosts.hosts for i in peers)
        subnets = tuple(s.cidr for s in self.spec.subnets)
        place = Place(
            network=network_id(1),
            name=self.spec.name,
            subnets=subnets,
            fleet=(*subnets, *vip_ranges(1)),
            parties=parties,
            services=vip_ranges(1),
        )
        feet = {endpoint_key(instance_of(number, i), network_id(1)): self.party(number, i) for i in NAMES}
        return host_policies(specs, feet, {network_id(1): place})

    def police(self, *specs: PolicySpec) -> None:
        for number, host in self.hosts.hosts.items():
            host.call("police", self.policies(number, *specs))

    def apply(self, number: int, *specs: PolicySpec) -> None:
        """The whole plan again."""
        plan = replace(self.hosts.plan(number), policies=self.policies(number, *specs))
        self.hosts.hosts[number].call("apply", plan)

    def start(self, *indexes: tuple[int, int]) -> None:
        for number, index in indexes:
            self.ids[number, index] = self.hosts.container(number, index, 1)
            if index == WEB:
                self._servers.append(server(self.space(number, index), f"web{number}"))

    def space(self, number: int, index: int) -> str:
        return self.hosts.hosts[number].space(self.ids[number, index])

    def hears(self, number: int, index: int, target: str, kind: str = "tcp", port: int = 80) -> bool:
        return asks(self.space(number, index), target, kind, port)

    def silent(self, number: int, index: int, target: str, kind: str = "tcp", port: int = 80) -> bool:
        return silence(self.space(number, index), target, kind, port)

    def shouts(self, number: int, index: int, target: str, patience: float = ANSWER) -> bool:
        """Whether anybody answers a datagram to that address, a group's or everybody's."""
        done = forkserver.run(self.space(number, index), SHOUT, target, str(patience), check=False)
        return done.returncode == 0

    def unanswered(self, number: int, index: int, target: str) -> bool:
        """Nobody answers such a datagram."""
        return not self.shouts(number, index, target, SILENCE)

    def near(self, number: int, index: int) -> str:
        """Its address that the link alone knows."""
        own = link_local(endpoint_mac(instance_of(number, index), network_id(1)))
        return f"{own}%eth0"

    def web(self, number: int) -> tuple[str, ...]:
        return tuple(filter(None, (inner4(self.spec, number, WEB), inner6(self.spec, number, WEB))))

    def close(self) -> None:
        for one in self._servers:
            one.close()


def instance_of(number: int, index: int) -> InstanceId:
    return InstanceId(f"{number:x}{index:x}" * 32)


def asks(namespace: str, target: str, kind: str = "tcp", port: int = 80, patience: float = ANSWER) -> bool:
    words = kind, target, str(port), str(patience)
    return forkserver.run(namespace, ASK, *words, check=False).returncode == 0


def silence(namespace: str, target: str, kind: str = "tcp", port: int = 80) -> bool:
    """Nobody answers."""
    return not asks(namespace, target, kind, port, SILENCE)


ROUTED, BRIDGED = overlay("back", 1, ipv6=True), overlay("back", 1, ipv6=True, mode="bridged")
LOCAL = NetworkSpec(
    name="back", driver="bridge", subnets=(Subnet(cidr="10.201.0.0/16"), Subnet(cidr="fd00:77::/64"))
)


def set_bridge_nf(hosts: NetHosts, value: int) -> None:
    for host in hosts.hosts.values():
        for name in ("iptables", "ip6tables"):
            host.run("sh", "-c", f"echo {value} > /proc/sys/net/bridge/bridge-nf-call-{name}")
