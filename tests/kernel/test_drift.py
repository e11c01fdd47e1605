"""Every object of every kind of network, damaged behind our back: repaired, told, containers untouched.

What the kernel tells of is repaired within a second; what it tells nobody, at the next look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from model.ids import InstanceId
from model.spec import NetworkSpec, Subnet
from model.status import BoundPort
from net.naming import bridge_name, speaker_name, speaker_port_name, veth_name, vxlan_name
from net.watch import COMPARE, SETTLE, SETTLES
from tests.support.hostprocess import HostProcess
from tests.support.nethosts import OUTSIDE, NetHosts, address, inner4, inner6, net_hosts, network_id, overlay
from tests.support.talkers import Talker, dialogue, server, unreached
from tests.support.waiting import wait_until

pytestmark = pytest.mark.kernel

ROUTED, BRIDGED = overlay("one", 1, ipv6=True), overlay("two", 2, ipv6=True, mode="bridged")
BRIDGE = NetworkSpec(
    name="three", driver="bridge", subnets=(Subnet(cidr="10.201.0.0/16"), Subnet(cidr="fd00:b::/64"))
)
NETWORKS = {1: ROUTED, 2: BRIDGED, 3: BRIDGE}


@dataclass
class Site:
    """Two hosts; on the first a container on all networks, `words` are the names of what is there."""

    hosts: NetHosts
    near: InstanceId
    words: Mapping[str, str]
    servers: list[Talker]
    held: Talker

    @property
    def host(self) -> HostProcess:
        return self.hosts.hosts[1]

    def unreached(self) -> list[str]:
        """Addresses that the container, or from outside its port, doesn't get an answer of."""
        targets = [
            *(inner(spec, 2, 0) for spec in (ROUTED, BRIDGED) for inner in (inner4, inner6)),
            *(inner(BRIDGE, 1, 1) for inner in (inner4, inner6)),
        ]
        found = unreached(self.host.space(self.near), targets)
        ping = ("busybox", "ping", "-c1", "-W1", OUTSIDE)
        found += [OUTSIDE] if self.host.inside(self.near, *ping, check=False).returncode else []
        return found + unreached(f"/run/netns/{self.hosts.switch}", [address(1)])

    def settle(self) -> None:
        """Until nothing is left to repair."""
        wait_until(lambda: self.host.call("drifts") == [], deadline=3, what="rest", pause=0.3)

    def rests(self) -> bool:
        """Whether the whole plan once more changes nothing."""
        before = self.host.call("mutations")
        self.hosts.apply(1)
        return bool(self.host.call("mutations") == before)

    def told(self, object_: str) -> None:
        """Wait until the repair of this is told."""
        seen = set[str]()

        def heard() -> bool:
            seen.update(item["object"] for item in self.host.call("drifts"))
            return object_ in seen

        wait_until(heard, deadline=1.0, what=f"the repair of {object_}")


def make_site(hosts: NetHosts) -> Site:
    hosts.carry(NETWORKS)
    near, far = hosts.container(1, 0, 1, 2, 3), hosts.container(2, 0, 1, 2)
    beside = hosts.container(1, 1, 3)
    port = BoundPort(target=80, published=80, protocol="tcp")
    hosts.publish(1, near, inner4(ROUTED, 1, 0), port, ipv6=inner6(ROUTED, 1, 0))
    spaces = {i: str(hosts.hosts[n].run_dir / "ns" / i) for n, i in ((1, near), (2, far), (1, beside))}
    servers = [server(space, name) for space, name in zip(spaces.values(), ("n", "f", "b"), strict=True)]
    held = dialogue(spaces[near], "tcp", inner4(ROUTED, 2, 0))
    return Site(hosts, near, names(hosts, near), servers, held)


def names(hosts: NetHosts, near: InstanceId) -> dict[str, str]:
    found = {
        "peer": address(2),
        "speaker": speaker_name(network_id(2)),
        "port": speaker_port_name(network_id(2)),
    }
    for number, kind in ((1, "routed"), (2, "bridged"), (3, "bridge")):
        found |= {
            f"{kind}_bridge": bridge_name(network_id(number)),
            f"{kind}_tunnel": vxlan_name(network_id(number)),
        }
        found[f"{kind}_veth"] = veth_name(near, network_id(number))
    words = ("ip", "-j", "neigh", "show", "dev", found["routed_tunnel"], "nud", "permanent")
    entries = json.loads(hosts.hosts[1].run(*words).stdout)
    by_family = {":" in entry["dst"]: entry for entry in entries}
    return {**found, "mac": by_family[False]["lladdr"], "hop6": by_family[True]["dst"]}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with net_hosts(2, "fldr") as hosts:
        made = make_site(hosts)
        try:
            yield made
        finally:
            for talker in (made.held, *made.servers):
                talker.close()


TOLD = (
    *(f"ip link del {{{kind}_bridge}}" for kind in ("routed", "bridged", "bridge")),
    *(f"ip link set {{{kind}_bridge}} down" for kind in ("routed", "bridged", "bridge")),
    *(f"ip link set {{{kind}_bridge}} mtu 1300" for kind in ("routed", "bridged", "bridge")),
    *(f"ip link set {{{kind}_bridge}} address 02:00:00:00:00:77" for kind in ("routed", "bridged", "bridge")),
    *(f"ip link set {{{kind}_bridge}} type bridge mcast_snooping 1" for kind in ("routed", "bridge")),
    *(f"ip link set {{{kind}_bridge}} alias ''" for kind in ("routed", "bridged", "bridge")),
    *(f"ip link del {{{kind}_tunnel}}" for kind in ("routed", "bridged")),
    *(f"ip link set {{{kind}_tunnel}} down" for kind in ("routed", "bridged")),
    *(f"ip link set {{{kind}_tunnel}} mtu 1300" for kind in ("routed", "bridged")),
    *(f"ip link set {{{kind}_tunnel}} address 02:00:00:00:00:77" for kind in ("routed", "bridged")),
    *(f"ip link set {{{kind}_tunnel}} alias ''" for kind in ("routed", "bridged")),
    "ip link set {bridged_tunnel} nomaster",
    "ip link set {routed_tunnel} master {routed_bridge}",
    *(f"ip link del {{{kind}_veth}}" for kind in ("routed", "bridged", "bridge")),
    *(f"ip link set {{{kind}_veth}} down" for kind in ("routed", "bridged", "bridge")),
    *(f"ip link set {{{kind}_veth}} mtu 1300" for kind in ("routed", "bridged", "bridge")),
    *(f"ip link set {{{kind}_veth}} nomaster" for kind in ("routed", "bridged", "bridge")),
    "ip link set {routed_veth} master {bridge_bridge}",
    "ip link set {routed_veth} alias ''",
    "ip link del {speaker}",
    "ip link set {port} nomaster",
    *(f"ip address flush dev {{{kind}_bridge}}" for kind in ("routed", "bridged", "bridge")),
    "ip address flush dev {speaker}",
    "ip address add 10.66.0.1/24 dev {routed_bridge}",
    "ip -6 address add fd66::1/64 dev {bridge_bridge} nodad",
    "ip route del 10.129.2.0/24",
    "ip route del 10.129.1.0/24",
    "ip route del unreachable 10.129.0.0/16",
    "ip route replace 10.129.2.0/24 dev eth0",
    "ip route change 10.129.2.0/24 dev {routed_bridge} proto 247",
    "ip route del 10.130.2.0/24",
    "ip -6 route del fd00:1::200/120",
    "ip -6 route replace fd00:1::200/120 dev {routed_bridge} metric 1024",
    "ip route del 10.127.1.0/24",
    "ip neigh del {peer} dev {routed_tunnel}",
    "ip neigh replace {peer} lladdr 02:00:00:00:00:78 dev {routed_tunnel}",
    "ip neigh del {hop6} dev {routed_tunnel}",
    "bridge fdb del {mac} dev {routed_tunnel} dst {peer}",
    "bridge fdb replace {mac} dev {routed_tunnel} dst 198.18.7.99",
    "bridge fdb del 00:00:00:00:00:00 dev {bridged_tunnel} dst {peer}",
    "bridge fdb append 00:00:00:00:00:00 dev {bridged_tunnel} dst 198.18.7.99",
    "sysctl -qw net.ipv4.ip_forward=0",
    "sysctl -qw net.ipv6.conf.all.forwarding=0",
    "sysctl -qw net.ipv4.conf.{routed_bridge}.rp_filter=0",
    "sysctl -qw net.ipv6.conf.{routed_bridge}.disable_ipv6=1",
    "nft flush ruleset",
    "nft delete table inet flota",
    "nft delete table bridge flota",
    "nft flush chain inet flota forward",
    "nft flush chain bridge flota guard",
    "nft flush set inet flota own",
    "nft flush set bridge flota feet4",
    "nft delete element inet flota own {{ {routed_bridge} }}",
    "nft delete element inet flota port4 {{ tcp . 80 }}",
    "nft add element inet flota port4 {{ tcp . 81 : 10.9.9.9 . 81 }}",
    "nft insert rule inet flota forward drop",
    "nft add chain inet flota forward {{ policy drop ; }}",
    "nft add table inet flota {{ flags dormant ; }}",
    "nft add set inet flota strange {{ type ipv4_addr ; }}",
)


def strike(site: Site, damage: str) -> None:
    site.host.run("sh", "-c", damage.format(**site.words).replace(";", r"\;"))


@pytest.mark.parametrize("damage", TOLD)
def test_damage_that_the_kernel_tells_of_is_repaired_within_a_second(site: Site, damage: str) -> None:
    site.settle()
    assert site.unreached() == []
    strike(site, damage)
    found = wait_until(lambda: site.host.call("drifts"), deadline=1.0, what="a report")
    assert all(item["object"] and item["action"] for item in found)
    wait_until(lambda: not site.unreached(), deadline=1.0, what=f"all of {site.unreached()}")
    wait_until(site.rests, deadline=2, what="rest")
    assert site.held.say("still here") == "still here"


def test_single_rule_that_is_deleted_comes_back(site: Site) -> None:
    for family, chain in (("inet", "forward"), ("inet", "publish"), ("bridge", "guard")):
        site.settle()
        listing = json.loads(site.host.run("nft", "-j", "list", "chain", family, "flota", chain).stdout)
        rules = [entry["rule"] for entry in listing["nftables"] if "rule" in entry]
        handle = str(rules[0]["handle"])
        site.host.run("nft", "delete", "rule", family, "flota", chain, "handle", handle)
        found = wait_until(lambda: site.host.call("drifts"), deadline=1.0, what="a report")
        assert [item["object"] for item in found] == [f"nft table {family} flota"]
        after = json.loads(site.host.run("nft", "-j", "list", "chain", family, "flota", chain).stdout)
        told = [entry["rule"]["comment"] for entry in after["nftables"] if "rule" in entry]
        assert told == [r["comment"] for r in rules]


SILENT: Mapping[str, str] = {
    "net.ipv4.conf.all.send_redirects": "1",
    "net.ipv4.conf.{routed_bridge}.send_redirects": "1",
    "net.ipv4.conf.{routed_bridge}.route_localnet": "0",
    "net.ipv4.conf.{routed_tunnel}.send_redirects": "1",
    "net.ipv6.conf.{bridge_bridge}.accept_ra": "1",
    "net.ipv4.conf.{bridged_bridge}.arp_ignore": "0",
    "net.ipv4.conf.{speaker}.arp_ignore": "0",
}
"""Switches of which the kernel tells nobody."""


def test_damage_that_nobody_is_told_of_is_repaired_at_the_next_look() -> None:
    assert COMPARE * 1.1 + SETTLE * SETTLES < 30, "within half a minute"
    with net_hosts(2, "fldq", compare=1.0) as hosts:
        hosts.carry(NETWORKS)
        near = hosts.container(1, 0, 1, 2, 3)
        hosts.publish(1, near, inner4(ROUTED, 1, 0), BoundPort(target=80, published=80, protocol="tcp"))
        host, words = hosts.hosts[1], names(hosts, near)
        steered = [host.sysfs / "class/net" / words[f"routed_{link}"] for link in ("veth", "tunnel")]
        masks = [link / "queues/rx-0/rps_cpus" for link in steered]
        spread = [mask.read_text() for mask in masks]
        wait_until(lambda: host.call("drifts") == [], deadline=3, what="rest", pause=0.3)
        right = {name.format(**words): "" for name in SILENT}
        for name in right:
            right[name] = host.run("sysctl", "-n", name).stdout
        for name, wrong in SILENT.items():
            assert right[name.format(**words)].strip() != wrong
            host.run("sysctl", "-qw", f"{name.format(**words)}={wrong}")
        for mask in masks:
            mask.write_text("0")
        wait_until(
            lambda: (
                {name: host.run("sysctl", "-n", name).stdout for name in right} == right
                and [mask.read_text() for mask in masks] == spread
            ),
            deadline=3,
            what="all switches set back",
        )
        wanted = {f"sysctl {name.replace('.', '/')}" for name in right}
        wanted |= {f"packet steering of {link.name}" for link in steered}
        told = set[str]()

        def all_told() -> bool:
            told.update(item["object"] for item in host.call("drifts"))
            return wanted <= told

        wait_until(all_told, deadline=3, what="all of it told")


FOREIGN = (
    "ip link add flbforeign type bridge",
    "ip link set flbforeign up",
    "bridge fdb add 02:00:00:00:00:55 dev flbforeign self permanent",
    "ip link add flxforeign type vxlan id 77 dstport 4790",
    "ip address add 198.18.7.211/32 dev eth0",
    "ip route add 192.0.2.0/24 dev eth0",
    "ip route add 10.129.2.5/32 dev eth0",
    "ip route add unreachable 10.99.0.0/16",
    "ip -6 route add fd77::/64 dev eth0",
    "ip rule add from 192.0.2.0/24 lookup main",
    "ip neigh add 198.18.7.98 lladdr 02:00:00:00:00:56 dev eth0 nud permanent",
    "nft add table ip flota",
    "nft add table inet stranger",
    "nft add chain inet stranger own {{ type filter hook forward priority 5 ; }}",
    "sysctl -qw net.ipv4.conf.eth0.send_redirects=1 net.ipv4.conf.eth0.rp_filter=2",
)
LISTINGS = (
    *("ip -br link show flbforeign", "ip -br link show flxforeign", "ip address show dev eth0"),
    *("bridge fdb show dev flbforeign", "ip route show proto boot", "ip route show 10.129.2.5"),
    *("ip -6 route show fd77::/64", "ip rule", "ip neigh show dev eth0 nud permanent"),
    *("nft list table ip flota", "nft list table inet stranger"),
    *("sysctl net.ipv4.conf.eth0.send_redirects", "sysctl net.ipv4.conf.eth0.rp_filter"),
)


def test_foreign_objects_are_not_touched_by_any_repair(site: Site) -> None:
    site.settle()
    for words in FOREIGN:
        strike(site, words)

    def seen() -> list[str]:
        return [site.host.run(*words.split()).stdout for words in LISTINGS]

    before = seen()
    assert all(before)
    site.settle()
    for words in (
        "ip link del {routed_bridge}",
        "ip link del {bridged_tunnel}",
        "nft delete table inet flota",
    ):
        strike(site, words)
    strike(site, "sysctl -qw net.ipv4.ip_forward=0")
    site.told("sysctl net/ipv4/ip_forward")
    wait_until(site.rests, deadline=2, what="rest")
    assert seen() == before


def test_what_cannot_be_repaired_is_told_and_holds_up_nothing_else(site: Site) -> None:
    """A stranger's device has our VXLAN number: the kernel allows one of each."""
    site.settle()
    tunnel = site.words["bridged_tunnel"]
    add = f"ip link add flxother type vxlan id 4098 dstport 4789 local {address(1)}"
    # the repair may be the faster one
    script = f"for turn in $(seq 50); do ip link del {tunnel}; {add} && exit; done; exit 1"
    site.host.run("sh", "-c", script)
    try:
        strike(site, "ip link del {routed_veth}")
        wait_until(lambda: inner4(BRIDGED, 2, 0) in site.unreached(), deadline=2, what="the loss")
        assert any(
            item["action"].startswith("not repaired: cannot add vxlan") for item in site.host.call("drifts")
        )
        lost = [a for a in site.unreached() if a not in (inner4(BRIDGED, 2, 0), inner6(BRIDGED, 2, 0))]
        assert lost == [], "the rest was repaired"
        with pytest.raises(
            RuntimeError, match=f"cannot add vxlan {tunnel}: another link has the VXLAN number 4098"
        ):
            site.hosts.apply(1)
    finally:
        site.host.run("ip", "link", "del", "flxother")
    wait_until(lambda: not site.unreached(), deadline=10, what="all, once the stranger is gone")
