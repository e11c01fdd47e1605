"""Policies in real kernels: both directions, each kind of network, both families, answers, drift, restart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from msgspec.structs import replace

from model.policy import PolicyPeer, PolicyPort, PolicyRule, PolicySpec, Selector
from model.status import BoundPort
from net.loadbalance import ServiceMember
from tests.support import forkserver
from tests.support.nethosts import OUTSIDE, address, inner4, inner6, net_hosts, overlay, vip
from tests.support.policed import (
    API,
    ASK,
    BRIDGED,
    INGRESS,
    LOCAL,
    PORT_80,
    ROUTED,
    STRANGER,
    WEB,
    Policed,
    asks,
    set_bridge_nf,
    silence,
)
from tests.support.talkers import dialogue, server
from tests.support.waiting import side_by_side, wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["routed", "bridged"])
def both(request: pytest.FixtureRequest) -> Iterator[Policed]:
    with net_hosts(2, "flpo") as hosts:
        made = Policed(hosts, ROUTED if request.param == "routed" else BRIDGED)
        yield made
        made.close()


@pytest.fixture
def routed() -> Iterator[Policed]:
    with net_hosts(2, "flpr") as hosts:
        made = Policed(hosts, ROUTED)
        yield made
        made.close()


@pytest.mark.parametrize("options", [{"driver": "host-gw"}, {"direct": "on"}], ids=["host-gw", "direct"])
def test_policy_holds_between_hosts_without_a_tunnel(options: dict[str, str]) -> None:
    with net_hosts(2, "flpd") as hosts:
        made = Policed(hosts, overlay("back", 1, ipv6=True, **options))
        try:
            made.start((1, API), (1, STRANGER), (2, WEB))
            made.police(INGRESS)
            targets = list(product(made.web(2), ("tcp", "udp")))
            for target in targets:
                wait_until(lambda t=target: made.hears(1, API, *t), deadline=5, what=" by ".join(target))
            silent = side_by_side(made.silent, ((1, STRANGER, *target) for target in targets))
            assert all(silent.values()), silent
            made.police()
            assert made.hears(1, STRANGER, made.web(2)[1])
        finally:
            made.close()


@pytest.mark.parametrize("bridge_nf", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_policy_of_ingress_lets_in_whom_it_names_from_every_host(both: Policed, bridge_nf: int) -> None:
    set_bridge_nf(both.hosts, bridge_nf)
    both.start((1, API), (1, STRANGER), (2, WEB), (2, API), (2, STRANGER))
    both.police(INGRESS)
    asked = list(product((1, 2), (API, STRANGER), both.web(2), ("tcp", "udp")))
    heard = side_by_side(both.hears, (case for case in asked if case[1] == API))
    assert all(heard.values()), heard
    silent = side_by_side(both.silent, (case for case in asked if case[1] == STRANGER))
    assert all(silent.values()), silent
    for target in both.web(2):
        assert both.hosts.hosts[2].python(ASK, "tcp", target, "80"), "its host may"
    both.police()
    assert both.hears(1, STRANGER, both.web(2)[0])
    assert both.hears(2, STRANGER, both.web(2)[1])


@pytest.mark.parametrize("bridge_nf", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_policy_of_egress_lets_out_to_whom_it_names(both: Policed, bridge_nf: int) -> None:
    set_bridge_nf(both.hosts, bridge_nf)
    both.start((1, API), (1, STRANGER), (1, WEB), (2, WEB))
    outside = server(f"/run/netns/{both.hosts.switch}", "outside")
    only_web = PolicySpec(
        name="out",
        selects=Selector(service="api"),
        egress=(PolicyRule(peers=(PolicyPeer(container="web"),), ports=PORT_80),),
    )
    to_outside = PolicySpec(
        name="outside",
        selects=Selector(service="api"),
        egress=(PolicyRule(peers=(PolicyPeer(outside=True),)),),
    )
    try:
        both.police(only_web)
        for number in (1, 2):
            for target in both.web(number):
                for kind in ("tcp", "udp"):
                    assert both.hears(1, API, target, kind), (target, kind)
        silent = side_by_side(both.silent, ((1, API, OUTSIDE), (1, API, address(2), "tcp", 7)))
        assert all(silent.values()), silent
        assert both.hears(1, STRANGER, OUTSIDE)
        both.police(to_outside)
        assert both.hears(1, API, OUTSIDE)
        assert all(side_by_side(both.silent, ((1, API, both.web(n)[0]) for n in (1, 2))).values())
    finally:
        outside.close()


def test_policy_on_a_bridge_holds_between_its_containers() -> None:
    with net_hosts(1, "flpb") as hosts:
        local = Policed(hosts, LOCAL)
        local.start((1, WEB), (1, API), (1, STRANGER))
        try:
            for bridge_nf in (0, 1):
                set_bridge_nf(hosts, bridge_nf)
                local.police(INGRESS)
                asked = list(product(local.web(1), ("tcp", "udp")))
                heard = side_by_side(local.hears, ((1, API, *case) for case in asked))
                silent = side_by_side(local.silent, ((1, STRANGER, *case) for case in asked))
                assert all((heard | silent).values()), (bridge_nf, heard, silent)
                local.police()
                assert local.hears(1, STRANGER, local.web(1)[0])
        finally:
            local.close()


def test_policy_lets_answers_in_to_whom_nobody_may_reach(both: Policed) -> None:
    both.start((1, STRANGER), (2, WEB))
    closed = PolicySpec(name="closed", selects=Selector(container="stranger"), ingress=())
    both.police(closed)
    for target in both.web(2):
        assert both.hears(1, STRANGER, target, "tcp")
        assert both.hears(1, STRANGER, target, "udp")
        assert both.hosts.hosts[1].inside(both.ids[1, STRANGER], "busybox", "ping", "-c1", "-W1", target)


def test_policy_stands_before_the_first_packet_and_without_agents(both: Policed) -> None:
    both.police(INGRESS)
    both.start((1, API), (1, STRANGER), (2, WEB))
    for host in both.hosts.hosts.values():
        host.kill()
    assert both.hears(1, API, both.web(2)[0])
    assert both.silent(1, STRANGER, both.web(2)[0])
    for number, host in both.hosts.hosts.items():
        host.start()
        both.apply(number, INGRESS)
        assert host.call("mutations") == 0
    assert both.silent(1, STRANGER, both.web(2)[0])


def test_policy_that_somebody_flushed_is_set_back(routed: Policed) -> None:
    routed.start((1, STRANGER), (2, WEB))
    routed.police(INGRESS)
    host = routed.hosts.hosts[2]
    host.run("nft", "flush", "map", "inet", "flota", "gets4")
    wait_until(lambda: routed.silent(1, STRANGER, routed.web(2)[0]), deadline=5)
    host.run("nft", "delete", "table", "inet", "flota")
    listed = ("nft", "list", "chain", "inet", "flota", "judge")
    wait_until(lambda: host.run(*listed, check=False).returncode == 0, deadline=5)
    assert routed.silent(1, STRANGER, routed.web(2)[0])
    assert host.call("drifts")


def test_policy_judges_the_replica_behind_a_services_address(routed: Policed) -> None:
    routed.start((1, API), (1, STRANGER), (1, WEB), (2, WEB))
    members = tuple(
        ServiceMember(ipv4=inner4(routed.spec, n, WEB), ipv6=inner6(routed.spec, n, WEB)) for n in (1, 2)
    )
    base = vip(1, 5)
    service = replace(base, members=members)
    routed.hosts.serve(web=service)
    routed.police(INGRESS)
    for target in (base.ipv4, base.ipv6):
        assert all(routed.hears(1, API, target) for _ in range(2)), target
    for _ in range(2):
        silent = side_by_side(routed.silent, ((1, STRANGER, target) for target in (base.ipv4, base.ipv6)))
        assert all(silent.values()), silent
    out = PolicySpec(
        name="out",
        selects=Selector(service="api"),
        egress=(PolicyRule(peers=(PolicyPeer(container="web"),)),),
    )
    routed.police(out)
    assert all(routed.hears(1, API, target) for target in (base.ipv4, base.ipv6))
    routed.hosts.serve(web=base)
    done = forkserver.run(routed.space(1, API), ASK, "tcp", base.ipv4, "80", check=False)
    assert "ConnectionRefusedError" in done.stderr, "a service without members refuses at once"


def test_policy_of_addresses_sees_clients_of_published_ports(routed: Policed) -> None:
    routed.start((1, WEB))
    port = BoundPort(target=80, published=8080, protocol="tcp", host_ip="")
    routed.hosts.publish(1, routed.ids[1, WEB], routed.web(1)[0], port)
    lan = f"/run/netns/{routed.hosts.switch}"
    assert asks(lan, address(1), port=8080)

    def allow(*peers: PolicyPeer) -> PolicySpec:
        return PolicySpec(name="in", selects=Selector(container="web"), ingress=(PolicyRule(peers=peers),))

    routed.police(allow(PolicyPeer(cidr="192.0.2.0/24")))
    assert silence(lan, address(1), port=8080)
    routed.police(allow(PolicyPeer(cidr="198.18.0.0/15", without=("198.18.99.0/24",))))
    assert asks(lan, address(1), port=8080)


def test_policy_change_of_members_is_an_element_and_connections_go_on(routed: Policed) -> None:
    routed.start((1, API), (2, WEB))
    host = routed.hosts.hosts[2]
    host.call("police", routed.policies(2, INGRESS, peers=(WEB, STRANGER)))
    assert routed.silent(1, API, routed.web(2)[0])
    before = host.call("mutations")
    host.call("police", routed.policies(2, INGRESS))
    assert host.call("mutations") - before == 2, "one transaction per table"
    kept = dialogue(routed.space(1, API), "tcp", routed.web(2)[0])
    try:
        assert kept.say("hello") == "hello"
        host.call("police", routed.policies(2, INGRESS, peers=(WEB, STRANGER)))
        assert kept.say("still") == "still"
        assert routed.silent(1, API, routed.web(2)[0])
    finally:
        kept.close()


def test_policy_listing_is_what_was_asked_for(routed: Policed) -> None:
    """Elements come back in the words in which they were sent; nothing would be at rest otherwise."""
    everything = PolicySpec(
        name="all",
        selects=Selector(),
        ingress=(
            PolicyRule(
                peers=(PolicyPeer(cidr="10.0.0.0/8", without=("10.0.0.1/32",)), PolicyPeer(cidr="fd00::/8"))
            ),
            PolicyRule(
                ports=(PolicyPort(protocol="icmp"), PolicyPort(protocol="sctp"), PolicyPort(port=8, to=99))
            ),
            PolicyRule(peers=(PolicyPeer(outside=True), PolicyPeer(network="back"))),
        ),
        egress=(PolicyRule(), PolicyRule(peers=(PolicyPeer(service="api"),))),
    )
    routed.start((1, API), (2, WEB))
    routed.police(everything)
    for number, host in routed.hosts.hosts.items():
        before = host.call("mutations")
        routed.apply(number, everything)
        assert host.call("mutations") == before
