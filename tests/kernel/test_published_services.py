"""Published ports of services on real hosts: any host leads to any member, which sees who asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from model.ids import InstanceId
from model.spec import NetworkSpec, Publish, Subnet
from net.host import INGRESS
from net.loadbalance import Method, ServiceMember, VirtualService
from tests.support.nethosts import ENTRIES, OUTSIDE, NetHosts, address, inner4, inner6, ip, net_hosts, overlay
from tests.support.talkers import PORT, Talker, answers, dialogue, server

pytestmark = pytest.mark.kernel

SPEC = NetworkSpec(
    name=INGRESS,
    internal=True,
    subnets=(Subnet(cidr="10.200.0.0/16"), Subnet(cidr="fd00:9::/64")),
    options={"icc": "off"},
)
PLAIN = overlay("one", 1, ipv6=True)
OUTSIDE6 = "fd18:7::1"


def address6(number: int) -> str:
    return f"fd18:7::{10 + number}"


class Town:
    """Three hosts; each container stands on a plain overlay (its way out) and on the ingress network."""

    def __init__(self, hosts: NetHosts) -> None:
        self.hosts = hosts
        self.containers: dict[tuple[int, int], InstanceId] = {}
        self.talkers: list[Talker] = []
        self.bare: set[tuple[int, int]] = set()
        """Containers that stand on the ingress network alone."""
        ip("-n", hosts.switch, "address", "add", f"{OUTSIDE6}/64", "dev", "br0", "nodad")
        for number, host in hosts.hosts.items():
            ip("-n", host.netns, "address", "add", f"{address6(number)}/64", "dev", "eth0", "nodad")
        hosts.carry({1: PLAIN, ENTRIES: SPEC})

    @property
    def outside(self) -> str:
        return f"/run/netns/{self.hosts.switch}"

    def space(self, host: int, index: int, *networks: int) -> str:
        if (host, index) not in self.containers:
            feet = networks or (1, ENTRIES)
            self.containers[host, index] = self.hosts.container(host, index, *feet)
        return str(self.hosts.hosts[host].run_dir / "ns" / self.containers[host, index])

    def member(self, host: int, index: int, *networks: int) -> ServiceMember:
        if (host, index) not in self.containers:
            self.talkers.append(server(self.space(host, index, *networks), f"{host}.{index}"))
        return ServiceMember(ipv4=inner4(SPEC, host, index), ipv6=inner6(SPEC, host, index))

    def serve(self, **services: VirtualService) -> None:
        """Each host knows of its own members by which address they leave."""
        for number, host in self.hosts.hosts.items():
            host.call("serve", {key: self._seen_by(number, service) for key, service in services.items()})

    def _seen_by(self, number: int, service: VirtualService) -> VirtualService:
        own = {
            inner4(SPEC, h, i): (inner4(PLAIN, h, i), inner6(PLAIN, h, i))
            for h, i in self.containers
            if h == number and (h, i) not in self.bare
        }
        members = tuple(
            msgspec.structs.replace(m, inner4=own[m.ipv4][0], inner6=own[m.ipv4][1]) if m.ipv4 in own else m
            for m in service.members
        )
        return msgspec.structs.replace(service, members=members)

    def service(
        self,
        *members: tuple[int, int],
        port: int = 80,
        method: Method = "round-robin",
        allow: tuple[str, ...] = (),
    ) -> VirtualService:
        kinds = ("tcp", "udp")
        ports = tuple(
            Publish(target=PORT, published=port, protocol=k, mode="ingress", allow=allow) for k in kinds
        )  # type: ignore[arg-type]
        return VirtualService(members=tuple(self.member(*m) for m in members), method=method, ports=ports)

    def dialogue(self, space: str, kind: str, target: str) -> Talker:
        self.talkers.append(dialogue(space, kind, target))
        return self.talkers[-1]

    def close(self) -> None:
        for talker in self.talkers:
            talker.close()


@pytest.fixture
def town() -> Iterator[Town]:
    with net_hosts(3, "flin") as hosts:
        made = Town(hosts)
        try:
            yield made
        finally:
            made.close()


def names(found: list[list[str]]) -> Counter[str]:
    return Counter(words[0] for words in found)


def entries() -> list[str]:
    return [*(address(n) for n in (1, 2, 3)), *(address6(n) for n in (1, 2, 3))]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_every_host_leads_to_every_member_which_sees_the_client(town: Town, kind: str) -> None:
    town.serve(web=town.service((2, 0), (3, 0)))
    for target in entries():
        heard = answers(town.outside, kind, [target], 4)
        assert names(heard) == {"2.0": 2, "3.0": 2}, (target, heard)
        assert {words[1] for words in heard} == {OUTSIDE6 if ":" in target else OUTSIDE}, (target, heard)
