"""Published ports of services on real hosts: any host leads to any member, which sees who asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from model.ids import InstanceId
from model.spec import NetworkSpec, Publish, Subnet
from net.host import INGRESS, predefined_bridge
from net.loadbalance import Method, ServiceMember, VirtualService
from tests.support.nethosts import ENTRIES, OUTSIDE, NetHosts, address, inner4, inner6, ip, net_hosts, overlay
from tests.support.talkers import PORT, SERVER, Talker, answers, dialogue
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel

SPEC = NetworkSpec(
    name=INGRESS,
    internal=True,
    subnets=(Subnet(cidr="10.200.0.0/16"), Subnet(cidr="fd00:9::/64")),
    options={"icc": "off"},
)
PLAIN = overlay("one", 1, ipv6=True)
OUTSIDE6 = "fd18:7::1"
TARGET = "8088"


def address6(number: int) -> str:
    return f"fd18:7::{10 + number}"


class Town:
    """Three hosts; each container stands on a plain overlay (its way out) and on the ingress network."""

    def __init__(self, hosts: NetHosts) -> None:
        self.hosts = hosts
        self.containers: dict[tuple[int, int], InstanceId] = {}
        self.talkers: list[Talker] = []
        self.feet: dict[tuple[int, int], tuple[int | str, ...]] = {}
        """Networks of containers that don't stand on `PLAIN`, their way out first."""
        ip("-n", hosts.switch, "address", "add", f"{OUTSIDE6}/64", "dev", "br0", "nodad")
        for number, host in hosts.hosts.items():
            ip("-n", host.netns, "address", "add", f"{address6(number)}/64", "dev", "eth0", "nodad")
            hosts.addresses[number] = (address(number), address6(number))
        hosts.carry({1: PLAIN, ENTRIES: SPEC})

    @property
    def outside(self) -> str:
        return f"/run/netns/{self.hosts.switch}"

    def space(self, host: int, index: int, *networks: int) -> str:
        if (host, index) not in self.containers:
            feet = networks or self.feet.get((host, index), (1, ENTRIES))
            self.containers[host, index] = self.hosts.container(host, index, *feet)
        return str(self.hosts.hosts[host].run_dir / "ns" / self.containers[host, index])

    def member(self, host: int, index: int) -> ServiceMember:
        if (host, index) not in self.containers:
            self.talkers.append(Talker(self.space(host, index), SERVER, f"{host}.{index}", TARGET))
        return ServiceMember(ipv4=inner4(SPEC, host, index), ipv6=inner6(SPEC, host, index))

    def serve(self, **services: VirtualService) -> None:
        """Each host knows of its own members by which address they leave."""
        for number, host in self.hosts.hosts.items():
            host.call("serve", {key: self.seen_by(number, service) for key, service in services.items()})

    def seen_by(self, number: int, service: VirtualService) -> VirtualService:
        own = {inner4(SPEC, h, i): self._inner(h, i) for h, i in self.containers if h == number}
        members = tuple(
            msgspec.structs.replace(m, inner4=own[m.ipv4][0], inner6=own[m.ipv4][1]) if m.ipv4 in own else m
            for m in service.members
        )
        return msgspec.structs.replace(service, members=members)

    def _inner(self, host: int, index: int) -> tuple[str, str]:
        first = self.feet.get((host, index), (1,))[0]
        if first == ENTRIES:
            return "", ""
        way = predefined_bridge() if first == "bridge" else PLAIN
        return inner4(way, host, index), inner6(way, host, index)

    def service(
        self,
        *members: tuple[int, int],
        port: int = PORT,
        method: Method = "round-robin",
        allow: tuple[str, ...] = (),
    ) -> VirtualService:
        made = Publish(target=int(TARGET), published=port, mode="ingress", allow=allow)
        ports = (made, msgspec.structs.replace(made, protocol="udp"))
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


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_member_without_any_way_out_answers_by_the_ingress_network(town: Town, kind: str) -> None:
    town.feet[2, 0] = (ENTRIES,)
    town.serve(web=town.service((2, 0)))
    for target in entries():
        (word, client), *_ = answers(town.outside, kind, [target])
        assert (word, client) == ("2.0", OUTSIDE6 if ":" in target else OUTSIDE), target
    began = answers(town.space(2, 0), "tcp", [OUTSIDE, address(1), address(2), inner4(SPEC, 3, 0)])
    assert all(words[0].endswith("Error") and float(words[1]) < 2 for words in began), began


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_hosts_and_containers_of_the_fleet_reach_it_too(town: Town, kind: str) -> None:
    town.serve(web=town.service((2, 0), (3, 0)))
    both = {"2.0": 2, "3.0": 2}
    for number in (1, 2):
        host = f"/run/netns/{town.hosts.hosts[number].netns}"
        assert names(answers(host, kind, ["127.0.0.1"], 4)) == both, (number, "loopback")
        for target in entries():
            assert names(answers(host, kind, [target], 4)) == both, (number, target)
    for place in ((1, 5), (2, 0)):
        space = town.space(*place, 1)
        for target in entries():
            assert names(answers(space, kind, [target], 4)) == both, (place, target)


@pytest.mark.parametrize("method", ["source-hash", "sticky"])
def test_client_comes_back_to_the_same_member(town: Town, method: Method) -> None:
    members = [(1, 0), (2, 0), (2, 1), (3, 0)]
    town.serve(web=town.service(*members, method=method))
    for target in (address(1), address6(1)):
        heard = names(answers(town.outside, "tcp", [target], 8))
        assert len(heard) == 1, (target, heard)
        home = next(iter(heard))
        rest = [m for m in members if f"{m[0]}.{m[1]}" != home]
        town.serve(web=town.service(*rest, method=method))
        wait_until(
            lambda t=target, h=home: h not in names(answers(town.outside, "tcp", [t], 2)),
            deadline=2,
            what="another member",
        )
        heard = names(answers(town.outside, "tcp", [target], 8))
        assert len(heard) == 1
        town.serve(web=town.service(*members, method=method))
        if method == "sticky":
            assert names(answers(town.outside, "tcp", [target], 8)) == heard


def test_port_is_for_the_clients_on_its_list(town: Town) -> None:
    some = town.service((2, 0), allow=(f"{OUTSIDE}/32", "fd18:7::/120", "203.0.113.0/24"))
    other = town.service((2, 0), allow=("198.18.7.10/31", "203.0.113.0/24"))
    town.serve(web=some)
    assert [w[0] for w in answers(town.outside, "tcp", entries())] == ["2.0"] * 6
    town.serve(web=other)
    assert all(words[0] == "ConnectionRefusedError" for words in answers(town.outside, "tcp", entries()))
    second = f"/run/netns/{town.hosts.hosts[1].netns}"
    assert answers(second, "tcp", [address(3)])[0][0] == "2.0", "198.18.7.11 is on it"
    town.serve(web=town.service((2, 0)))
    assert [w[0] for w in answers(town.outside, "udp", entries())] == ["2.0"] * 6


def test_nobody_ready_refuses_at_once_and_a_port_that_is_gone_is_the_hosts_again(town: Town) -> None:
    town.serve(web=town.service())
    for kind in ("tcp", "udp"):
        for target in entries():
            (word, seconds), *_ = answers(town.outside, kind, [target])
            assert word == "ConnectionRefusedError" and float(seconds) < 0.5, (kind, target)
    host = town.hosts.hosts[1]
    town.talkers.append(Talker(f"/run/netns/{host.netns}", SERVER, "host", str(PORT)))
    assert answers(town.outside, "tcp", [address(1)])[0][0] == "ConnectionRefusedError"
    for made in town.hosts.hosts.values():
        made.call("serve", {"web": None})
    assert answers(town.outside, "tcp", [address(1)])[0][0] == "host"


def test_connection_survives_any_change_and_datagrams_follow_it(town: Town) -> None:
    early = [town.dialogue(town.outside, "udp", target) for target in entries()]
    assert [talker.say("?") for talker in early] == ["ConnectionRefusedError"] * 6
    town.serve(web=town.service((2, 0)))
    for talker in early:
        wait_until(lambda t=talker: t.say("?").startswith("2.0"), deadline=2, what="an open port")
    held = [town.dialogue(town.outside, "tcp", target) for target in entries()]
    sent = [town.dialogue(town.outside, "udp", target) for target in entries()]
    assert [talker.say("?").split()[0] for talker in sent] == ["2.0"] * 6
    for members in (((2, 0), (3, 0)), ((3, 0),), ((1, 0), (3, 0))):
        town.serve(web=town.service(*members))
        assert [talker.say("still") for talker in held] == ["still"] * 6
    there = ("1.0", "3.0")
    for talker in sent:
        wait_until(lambda t=talker: t.say("?").split()[0] in there, deadline=2, what="another member")


def test_all_of_it_goes_on_while_agents_are_dead_and_they_come_back_to_it(town: Town) -> None:
    town.serve(web=town.service((2, 0), (3, 0)))
    for host in town.hosts.hosts.values():
        host.kill()
    for target in entries():
        assert names(answers(town.outside, "udp", [target], 4)) == {"2.0": 2, "3.0": 2}, target
    for number, host in town.hosts.hosts.items():
        host.start()
        town.hosts.services = {"web": town.seen_by(number, town.service((2, 0), (3, 0)))}
        town.hosts.apply(number)
        assert host.call("mutations") == 0


@pytest.mark.parametrize(
    "damage",
    [
        "ip rule del priority 24702",
        "ip -6 rule del priority 24703",
        "ip route flush table 63234",
        "ip -6 route flush table 63235",
        "nft flush chain inet flota entered",
        "nft flush map inet flota_services port4",
        "nft flush map inet flota_services target",
        "nft flush map inet flota_services inner4",
    ],
)
def test_damage_is_repaired_within_a_second_and_told(town: Town, damage: str) -> None:
    town.serve(web=town.service((1, 0)))
    host = town.hosts.hosts[1]
    wait_until(lambda: host.call("drifts") == [], deadline=3, what="rest", pause=0.2)
    host.run(*damage.split())
    wait_until(lambda: host.call("drifts"), deadline=1.0, what="a report")
    for kind in ("tcp", "udp"):
        assert [w[0] for w in answers(town.outside, kind, entries())] == ["1.0"] * 6, kind


def test_marks_of_others_stay_and_foreign_rules_and_routes_too(town: Town) -> None:
    town.serve(web=town.service((1, 0)))
    host = town.hosts.hosts[1]
    host.run("nft", "add table inet other")
    host.run("nft", "add chain inet other c { type filter hook prerouting priority -140; }")
    host.run("nft", "add rule inet other c ct mark set ct mark or 0x2a")
    host.run("ip", "rule", "add", "fwmark", "0x1/0xff", "lookup", "main", "priority", "24710")
    assert answers(town.outside, "tcp", [address(2)])[0][0] == "1.0"
    known = host.run("cat", "/proc/net/nf_conntrack").stdout
    assert f"mark={(2 << 24) | 0x2A}" in known, known
    town.hosts.networks[1] = {1: PLAIN}
    host.call("detach", town.containers[1, 0], INGRESS)
    town.hosts.apply(1)
    left = host.run("ip", "rule").stdout
    assert "24710" in left and not any(f"2470{n}" in left for n in (1, 2, 3)), left
    assert "ingress" not in host.run("ip", "-br", "link").stdout


SEGMENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
s.recv(99)
print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""


def test_client_is_told_of_the_tunnels_segments_whatever_the_members_link_carries(town: Town) -> None:
    town.feet[2, 0] = ("bridge", ENTRIES)
    town.serve(web=town.service((2, 0)))
    for entry, most in ((1, 1450), (2, 1500)):
        found = int(town.hosts.python_outside(SEGMENT, address(entry), str(PORT)).stdout)
        assert most - 60 < found <= most - 40, (entry, found)


def test_drop_in_a_strangers_forward_chain_is_final(town: Town) -> None:
    town.serve(web=town.service((2, 0)))
    host = town.hosts.hosts[1]
    host.run("nft", "add table inet wall")
    host.run("nft", "add chain inet wall f { type filter hook forward priority 10; policy drop; }")
    heard = answers(town.outside, "tcp", [address(1), address(2)])
    assert [words[0] for words in heard] == ["TimeoutError", "2.0"]
    host.run("nft", "delete table inet wall")
    assert answers(town.outside, "tcp", [address(1)])[0][0] == "2.0"
