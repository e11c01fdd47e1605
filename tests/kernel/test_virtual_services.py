"""Service addresses on real hosts: who reaches which member, by what method, and what changes leave alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from model.ids import InstanceId
from model.spec import NetworkSpec, Subnet
from net.loadbalance import Method, ServiceMember, VirtualService
from tests.support.nethosts import NetHosts, inner4, inner6, net_hosts, overlay, vip
from tests.support.talkers import Talker, answers, dialogue, server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel

BRIDGE = NetworkSpec(
    name="b", driver="bridge", subnets=(Subnet(cidr="10.201.0.0/16"), Subnet(cidr="fd00:b::/64"))
)
NETWORKS = {
    "routed": overlay("one", 1, ipv6=True),
    "bridged": overlay("one", 1, ipv6=True, mode="bridged"),
    "bridge": BRIDGE,
}


class Town:
    """Two hosts and the servers on them; a member is (host, index)."""

    def __init__(self, hosts: NetHosts) -> None:
        self.hosts = hosts
        self.spec = NETWORKS["routed"]
        self.containers: dict[tuple[int, int], InstanceId] = {}
        self.talkers: list[Talker] = []

    def carry(self, **specs: NetworkSpec) -> None:
        self.spec = next(iter(specs.values()))
        self.hosts.carry(dict(enumerate(specs.values(), 1)))

    def space(self, host: int, index: int, *networks: int) -> str:
        """A container's namespace."""
        if (host, index) not in self.containers:
            self.containers[host, index] = self.hosts.container(host, index, *(networks or (1,)))
        return str(self.hosts.hosts[host].run_dir / "ns" / self.containers[host, index])

    def member(self, host: int, index: int) -> ServiceMember:
        """With a server, once for all."""
        if (host, index) not in self.containers:
            self.talkers.append(server(self.space(host, index), f"{host}.{index}"))
        return ServiceMember(ipv4=inner4(self.spec, host, index), ipv6=inner6(self.spec, host, index))

    def service(
        self, *members: tuple[int, int], number: int = 1, network: int = 1, method: Method = "round-robin"
    ) -> VirtualService:
        found = tuple(self.member(*m) for m in members)
        return msgspec.structs.replace(vip(network, number), members=found, method=method)

    def dialogue(self, host: int, index: int, kind: str, target: str) -> Talker:
        self.talkers.append(dialogue(self.space(host, index), kind, target))
        return self.talkers[-1]

    def close(self) -> None:
        for talker in self.talkers:
            talker.close()


@pytest.fixture
def town() -> Iterator[Town]:
    with net_hosts(2, "flsv") as hosts:
        made = Town(hosts)
        try:
            yield made
        finally:
            made.close()


def addresses(service: VirtualService) -> tuple[str, str]:
    return service.ipv4, service.ipv6


def names(found: list[list[str]]) -> Counter[str]:
    return Counter(words[0] for words in found)


@pytest.mark.parametrize("bridge_nf", ["0", "1"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("network", ["routed", "bridged", "bridge"])
def test_service_is_reached_from_everywhere_on_its_network(
    town: Town, network: str, kind: str, bridge_nf: str
) -> None:
    for made in town.hosts.hosts.values():
        for name in ("iptables", "ip6tables"):
            made.run("sh", "-c", f"echo {bridge_nf} > /proc/sys/net/bridge/bridge-nf-call-{name}")
    town.carry(one=NETWORKS[network])
    members = [(1, 0), (1, 1)] if network == "bridge" else [(1, 0), (1, 1), (2, 0)]
    service = town.service(*members)
    town.hosts.serve(web=service)
    every = {f"{host}.{index}" for host, index in members}
    near = town.space(1, 5)
    for target, own in zip(addresses(service), (town.member(1, 5).ipv4, town.member(1, 5).ipv6), strict=True):
        heard = answers(near, kind, [target], 6)
        assert names(heard).keys() == every, (target, heard)
        if network == "routed":
            assert {words[1] for words in heard} == {own}
        assert names(answers(town.space(1, 0), kind, [target], 6)).keys() == every, f"a member, {target}"
        if network != "bridge":
            assert names(answers(town.space(2, 5), kind, [target], 6)).keys() == every, f"elsewhere, {target}"
        reached = names(answers(f"/run/netns/{town.hosts.hosts[1].netns}", kind, [target], 6)).keys()
        assert reached == every, f"the host, {target}"


def test_round_robin_is_even_also_for_services_asked_in_turn(town: Town) -> None:
    town.carry(one=NETWORKS["routed"])
    one, two = town.service((1, 0), (2, 0)), town.service((1, 1), (2, 1), number=2)
    town.hosts.serve(one=one, two=two)
    heard = answers(town.space(1, 5), "tcp", [one.ipv4, two.ipv4], 10)
    assert names(heard) == {"1.0": 5, "2.0": 5, "1.1": 5, "2.1": 5}
    heard = answers(town.space(1, 5), "tcp", [one.ipv6, two.ipv6], 10)
    assert names(heard) == {"1.0": 5, "2.0": 5, "1.1": 5, "2.1": 5}


@pytest.mark.parametrize("method", ["source-hash", "sticky"])
def test_client_comes_back_to_the_same_member(town: Town, method: Method) -> None:
    town.carry(one=NETWORKS["routed"])
    members = [(1, 0), (1, 1), (2, 0), (2, 1)]
    service = town.service(*members, method=method)
    town.hosts.serve(web=service)
    homes: dict[tuple[int, str], str] = {}
    for index in range(5, 9):
        for target in addresses(service):
            heard = names(answers(town.space(1, index), "tcp", [target], 8))
            assert len(heard) == 1, (index, target, heard)
            homes[index, target] = next(iter(heard))
    assert len(set(homes.values())) > 1
    gone = homes[5, service.ipv4]
    rest = [m for m in members if f"{m[0]}.{m[1]}" != gone]
    town.hosts.serve(web=town.service(*rest, method=method))
    for (index, target), home in homes.items():
        wait_until(
            lambda i=index, t=target: gone not in names(answers(town.space(1, i), "tcp", [t], 2)),
            deadline=5,
            what="another member",
        )
        heard = names(answers(town.space(1, index), "tcp", [target], 8))
        assert len(heard) == 1
        if method == "sticky" and home != gone and target == service.ipv4:
            assert heard.keys() == {home}


def test_long_connection_survives_any_change_of_other_members(town: Town) -> None:
    town.carry(one=NETWORKS["routed"])
    town.hosts.serve(web=town.service((1, 0)))
    others = [(1, 1), (2, 0), (2, 1)]
    held = [town.dialogue(*at, "tcp", target) for at in ((1, 5), (2, 5)) for target in addresses(vip(1, 1))]
    assert {talker.greeting.split()[0] for talker in held} == {"1.0"}
    for turn in range(40):
        chosen = [m for i, m in enumerate(others) if turn >> i & 1]
        town.hosts.serve(web=town.service((1, 0), *chosen))
        for talker in held:
            assert talker.say(f"turn {turn}") == f"turn {turn}"
    town.hosts.serve(web=None)
    assert [talker.say("after") for talker in held] == ["after"] * len(held)


@pytest.mark.parametrize("at", [(1, 5), (2, 5)])
def test_datagrams_of_a_kept_socket_leave_a_member_that_is_gone(town: Town, at: tuple[int, int]) -> None:
    town.carry(one=NETWORKS["routed"])
    town.hosts.serve(web=town.service((1, 0)))
    held = [town.dialogue(*at, "udp", target) for target in addresses(vip(1, 1))]
    assert [talker.say("?").split()[0] for talker in held] == ["1.0", "1.0"]
    town.hosts.serve(web=town.service((2, 0)))
    for talker in held:
        wait_until(lambda t=talker: t.say("?").startswith("2.0"), deadline=5, what="the new member")
    town.hosts.serve(web=town.service())
    for talker in held:
        wait_until(lambda t=talker: t.say("?") == "ConnectionRefusedError", deadline=5, what="a refusal")


@pytest.mark.parametrize("network", ["routed", "bridged", "bridge"])
def test_service_without_members_refuses_at_once(town: Town, network: str) -> None:
    town.carry(one=NETWORKS[network])
    town.hosts.serve(web=town.service(), other=town.service((1, 0), number=2))
    host = f"/run/netns/{town.hosts.hosts[1].netns}"
    for kind in ("tcp", "udp"):
        for space in (town.space(1, 5), host):
            for target in (*addresses(vip(1, 1)), *addresses(vip(1, 77))):
                (word, seconds), *_ = answers(space, kind, [target])
                refused = "PermissionError" if (kind, space) == ("udp", host) else "ConnectionRefusedError"
                assert word == refused, (kind, space, target)
                assert float(seconds) < 0.5


def test_service_is_reached_from_its_own_network_only(town: Town) -> None:
    inner = NetworkSpec(
        name="i",
        driver="bridge",
        internal=True,
        subnets=(Subnet(cidr="10.202.0.0/16"), Subnet(cidr="fd00:c::/64")),
    )
    town.carry(one=NETWORKS["routed"], two=overlay("two", 2, ipv6=True), three=inner)
    service = town.service((1, 0))
    town.hosts.serve(web=service)
    for index, networks in ((5, (2,)), (6, (3,))):
        for kind in ("tcp", "udp"):
            for target in addresses(service):
                (word, *_), *_ = answers(town.space(1, index, *networks), kind, [target])
                assert word.endswith("Error"), (index, kind, target)
    both = answers(town.space(1, 7, 2, 1), "tcp", addresses(service))
    assert names(both) == {"1.0": 2}, "a container on two networks asks by the right one"
    outside = f"/run/netns/{town.hosts.switch}"
    town.hosts.outside("ip", "route", "add", "10.127.0.0/16", "via", "198.18.7.11")
    (word, *_), *_ = answers(outside, "tcp", [service.ipv4])
    assert word.endswith("Error")


def test_service_of_an_internal_network_is_reached(town: Town) -> None:
    inner = NetworkSpec(
        name="i",
        driver="bridge",
        internal=True,
        subnets=(Subnet(cidr="10.202.0.0/16"), Subnet(cidr="fd00:c::/64")),
    )
    town.carry(one=inner)
    service = town.service((1, 0))
    town.hosts.serve(web=service)
    assert names(answers(town.space(1, 5), "tcp", addresses(service), 3)) == {"1.0": 6}


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft delete table inet flota_services",
        "nft flush map inet flota_services vip4",
        "nft flush map inet flota_services pick4",
        "nft flush set inet flota_services served4",
        "nft flush chain inet flota_services balance4",
        "nft flush chain inet flota_services rr-2-1",
        "nft add chain inet flota_services prerouting { policy drop ; }",
        "nft add table inet flota_services { flags dormant ; }",
    ],
)
def test_damage_is_repaired_within_a_second_and_told(town: Town, damage: str) -> None:
    town.carry(one=NETWORKS["routed"])
    service = town.service((1, 0), (2, 0))
    town.hosts.serve(web=service)
    host = town.hosts.hosts[1]
    wait_until(lambda: host.call("drifts") == [], deadline=2, what="rest", pause=0.2)
    host.run(*damage.split())
    found = wait_until(lambda: host.call("drifts"), deadline=1.0, what="a report")
    assert "nft table inet flota_services" in {item["object"] for item in found}
    assert names(answers(town.space(1, 5), "tcp", [service.ipv4], 4)) == {"1.0": 2, "2.0": 2}
    before = host.call("mutations")
    town.hosts.apply(1)
    assert host.call("mutations") == before


def test_killed_agent_comes_back_to_its_services_and_changes_nothing(town: Town) -> None:
    town.carry(one=NETWORKS["routed"])
    service = town.service((1, 0), (2, 0), method="sticky")
    town.hosts.serve(web=service, other=town.service((1, 0), number=2))
    host = town.hosts.hosts[1]
    home = names(answers(town.space(1, 5), "tcp", [service.ipv4], 4))
    host.kill()
    assert names(answers(town.space(1, 5), "tcp", [service.ipv4], 4)) == home
    host.start()
    town.hosts.apply(1)
    assert host.call("mutations") == 0
    assert names(answers(town.space(1, 5), "tcp", [service.ipv4], 4)) == home
