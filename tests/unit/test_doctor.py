"""The check-up of networks: which ways are tried, and what answers mean."""

from __future__ import annotations

import struct

import pytest
from msgspec.structs import replace

from model.diagnosis import diagnose
from model.doctor import Finding, HostCheck, PathCheck, Repair, Through, Way
from model.ids import HostId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.status import HostFacts
from model.view import NetworkPeer, NetworkView, Peer
from net.host import NetworkPlan
from net.kernel.echo import checksum
from net.naming import vxlan_name
from net.paths import paths_of
from net.subnets import host_address

A, B = HostId("a" * 64), HostId("b" * 64)
NAMES = {A: "n1", B: "n2"}


def check(*paths: PathCheck, host: HostId = A, mtu: int = 1500, **more: object) -> HostCheck:
    return HostCheck(
        host=host, facts=HostFacts(hostname="x", address="192.0.2.1", mtu=mtu), paths=paths, **more
    )  # type: ignore[arg-type]


def path(network: str, small: float | None, large: float | None, note: str = "") -> PathCheck:
    return PathCheck(
        host=B, network=network, target="10.1.1.2", size=1450, small=small, large=large, note=note
    )


def told(*checks: HostCheck) -> list[Finding]:
    """With a check of n2 that says nothing, where there is none."""
    both = checks if any(c.host == B for c in checks) else (*checks, check(host=B))
    return list(diagnose(both, {}, NAMES, 4789).findings)


def test_hosts_that_all_answer_have_no_findings() -> None:
    checks = [check(path("", 0.1, 0.1), path("web", 0.1, 0.2)), check(host=B)]
    found = diagnose(checks, {}, NAMES, 4789)
    assert (found.findings, found.hosts, found.paths) == ((), 2, 2)


def test_hosts_without_a_check_are_told_with_the_reason() -> None:
    names = {**NAMES, HostId("c" * 64): "n3"}
    found = diagnose([check()], {"n2": "it does not answer within 60 s"}, names, 4789)
    assert [(f.where, f.what) for f in found.findings] == [
        ("n2", "not examined: it does not answer within 60 s"),
        ("n3", "not examined: it is not in session"),
    ]


def test_way_without_a_tunnel_that_is_silent_names_the_networks_addresses() -> None:
    silent = replace(path("web", None, None), tunnel=False)
    (finding,) = told(check(path("", 0.1, 0.1), silent))
    assert "UDP" not in finding.hint and "own addresses pass" in finding.hint


def test_tunnel_that_is_silent_between_hosts_that_answer_names_the_port() -> None:
    (finding,) = told(check(path("", 0.1, 0.1), path("web", None, None)))
    assert (finding.severity, finding.where) == ("fault", "n1 → n2, web")
    assert "UDP 4789" in finding.hint


def test_encrypted_tunnel_that_is_silent_names_its_peers_port() -> None:
    silent = replace(path("secret", None, None), port=51822)
    (finding,) = told(check(path("", 0.1, 0.1), silent))
    assert "UDP 51822" in finding.hint


def test_hosts_that_are_both_behind_nat_are_told_why_they_do_not_meet() -> None:
    facts = HostFacts(hostname="x", address="192.0.2.1", behind_nat=True)
    silent = check(path("secret", None, None))
    (finding,) = told(replace(silent, facts=facts), replace(check(host=B), facts=facts))
    assert (finding.kind, finding.severity) == (
        "behind-nats",
        "fault",
    ) and "Both are behind NAT" in finding.hint
    (finding,) = told(replace(silent, facts=facts))
    assert finding.kind == "unreachable", "one of them alone is another matter"


def test_hosts_that_do_not_answer_at_all_are_told_of_first() -> None:
    below, above = told(check(path("", None, None), path("web", None, None)))
    assert (below.severity, below.where) == ("warning", "n1 → n2, underlay")
    assert above.severity == "fault" and "no pings either" in above.hint and "UDP 4789" in above.hint


def test_hosts_that_answer_no_pings_but_by_their_networks_are_well() -> None:
    assert told(check(path("", None, None), path("web", 0.1, 0.1))) == []


def test_hosts_own_link_that_is_narrow_is_told_though_their_networks_answer() -> None:
    below = path("", None, None, note="packets of 1450 bytes don't fit through this host's own link")
    (finding,) = told(check(below, path("web", 0.1, 0.1)))
    assert finding.kind == "not-sent"


def test_large_packets_that_vanish_are_a_matter_of_mtu() -> None:
    (finding,) = told(check(path("", 0.1, 0.1), path("web", 0.1, None)))
    assert finding.severity == "fault"
    assert "1450 bytes" in finding.what and "--opt mtu=" in finding.hint


def test_hosts_of_different_mtu_are_a_warning() -> None:
    (finding,) = told(check(), check(host=B, mtu=9000))
    assert (finding.severity, finding.where) == ("warning", "underlay")
    assert "n1: 1500" in finding.what and "n2: 9000" in finding.what


def test_repairs_troubles_and_what_can_not_be_sent_are_told_with_their_host() -> None:
    one = check(path("web", None, None, note="this host has no route to 10.1.1.2"))
    repairs = (Repair(object="route 10.1.1.0/24", action="was missing, made again"),)
    findings = told(replace(one, repairs=repairs, troubles=("names: the resolver hangs",)))
    assert [f.severity for f in findings] == ["repaired", "fault", "fault"]
    (failed,) = told(check(repairs=(Repair(object="network", action="not repaired: no", failed=True),)))
    assert (failed.severity, failed.kind, failed.what) == (
        "fault",
        "not-repaired",
        "network not repaired: no",
    )
    assert findings[0].what == "route 10.1.1.0/24 was missing, made again"
    assert findings[1] == Finding(
        severity="fault", where="n1", what="names: the resolver hangs", kind="trouble", host="n1"
    )
    assert findings[2].what == "this host has no route to 10.1.1.2"


def test_addresses_of_containers_that_are_gone_are_told() -> None:
    (finding,) = told(replace(check(), leaked=("10.1.1.3", "10.1.1.4", "10.1.1.5", "10.1.1.6", "10.1.1.7")))
    assert finding.severity == "warning"
    assert finding.what.startswith("5 addresses") and finding.what.endswith("10.1.1.6 …")


def test_packets_that_are_led_astray_are_told_with_where_they_go_whether_answered_or_not() -> None:
    one, two = told(
        check(
            path("", 0.1, 0.1),
            replace(path("web", None, None), way="eth0"),
            replace(path("db", 0.1, 0.1), way="none"),
        )
    )
    assert (one.kind, one.host, one.peer, one.network) == ("led-astray", "n1", "n2", "web")
    assert "led by eth0" in one.what and "ip route get 10.1.1.2" in one.hint
    assert two.severity == "fault" and "led nowhere" in two.what


def test_host_that_leads_its_answers_astray_is_not_told_to_be_blocked() -> None:
    there = check(path("", 0.1, 0.1), replace(path("web", None, None), way="eth0"))
    back = check(*(replace(p, host=A) for p in (path("", 0.1, 0.1), path("web", None, None))), host=B)
    one, two = told(there, back)
    assert (one.kind, two.kind, two.where) == ("led-astray", "led-astray", "n2 → n1, web")
    assert two.hint == "n1 leads its answers astray: see what it sends to n2"


def test_containers_that_do_not_get_through_their_host_are_told_with_it() -> None:
    through = (
        Through(network="web", version=4, containers=2, answered=False),
        Through(network="db", version=4, containers=1, answered=True),
    )
    (finding,) = told(replace(check(path("", 0.1, 0.1), path("web", 0.1, 0.1)), through=through))
    assert (finding.severity, finding.where, finding.kind) == ("fault", "n1, web", "forwarding")
    assert "firewall here" in finding.hint


def test_host_of_all_blocked_ways_is_named_and_none_where_there_are_several() -> None:
    c = HostId("c" * 64)
    names = {**NAMES, c: "n3"}

    def silent(host: HostId, *peers: HostId) -> HostCheck:
        ways = [replace(path(net, *answer), host=p) for p in peers for net, answer in
                (("", (0.1, 0.1)), ("web", (None, None)))]  # fmt: skip
        return check(*ways, host=host)

    found = diagnose([silent(A, B), silent(B, A, c), silent(c, B)], {}, names, 4789).findings
    assert len(found) == 4 and all("every way that fails is n2's" in f.hint for f in found)
    found = diagnose([silent(A, B, c), silent(B, A, c), silent(c, B, A)], {}, names, 4789).findings
    assert len(found) == 6 and not any("look there first" in f.hint for f in found)
    found = diagnose([silent(A, B), silent(B, A), silent(c)], {}, names, 4789).findings
    assert len(found) == 2 and not any("look there first" in f.hint for f in found), "it may be either's"


def test_every_way_that_was_tried_is_told_by_names() -> None:
    found = diagnose([check(path("", 0.1, 0.2), path("web", 0.3, None)), check(host=B)], {}, NAMES, 4789)
    assert found.ways == (
        Way(host="n1", peer="n2", network="", version=4, size=1450, small=0.1, large=0.2),
        Way(host="n1", peer="n2", network="web", version=4, size=1450, small=0.3, large=None),
    )


@pytest.mark.parametrize("data", [b"", b"\x08\x00", bytes(range(64)), b"\xff" * 33])
def test_checksum_makes_the_whole_sum_up_to_ones(data: bytes) -> None:
    whole = data + b"\0" * (len(data) % 2) + struct.pack("!H", checksum(data))
    assert checksum(whole) == 0


def test_ways_to_a_peer_are_the_underlay_and_each_network_where_both_have_an_address() -> None:
    subnets = (Subnet(cidr="10.1.0.0/16"), Subnet(cidr="fd00:1::/64"))
    mine, theirs = ("10.1.1.0/24", "fd00:1::100/120"), ("10.1.2.0/24", "fd00:1::200/120")
    shared = NetworkView(
        id=NetworkId("c" * 64), spec=NetworkSpec(name="web", subnets=subnets), vni=4097, blocks=mine,
        peers=(NetworkPeer(host=B, blocks=theirs),),
    )  # fmt: skip
    lent = replace(
        shared, id=NetworkId("d" * 64), spec=NetworkSpec(name="tiny", subnets=(Subnet(cidr="10.2.0.0/24"),)),
        vni=4098, blocks=("10.2.0.9/32",), peers=(NetworkPeer(host=B, blocks=("10.2.0.10/32",)),),
    )  # fmt: skip
    plan = NetworkPlan(
        host=A, address="198.18.0.11", mtu=1500, vxlan_port=4789, networks={n.id: n for n in (shared, lent)},
        peers={h: Peer(host=h, name=NAMES[h], address=f"198.18.0.1{i}") for i, h in enumerate((A, B), 1)},
    )  # fmt: skip
    found = [(p.network, p.source, p.target, p.mtu, p.link) for p in paths_of(plan)]
    assert found == [
        ("", "198.18.0.11", "198.18.0.12", 1500, ""),
        *(
            ("web", host_address(s, mine), host_address(s, theirs), 1450, vxlan_name(shared.id))
            for s in subnets
        ),
    ]
