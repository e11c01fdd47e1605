"""Policies on one link: its own addresses, groups and broadcasts, addresses beside, datagrams in parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.policy import PolicyPeer, PolicyRule, PolicySpec, Selector
from model.spec import NetworkSpec
from net.naming import bridge_name
from tests.support.nethosts import net_hosts, network_id
from tests.support.policed import (
    API,
    BRIDGED,
    INGRESS,
    LOCAL,
    ROUTED,
    STRANGER,
    WEB,
    Policed,
    instance_of,
    set_bridge_nf,
)
from tests.support.talkers import Talker, server
from tests.support.waiting import side_by_side, wait_until

pytestmark = pytest.mark.kernel

LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9)); s.settimeout(0.5)
print("up", flush=True)
for line in sys.stdin:
    try: print(s.recvfrom(99)[1][0], flush=True)
    except OSError: print("nothing", flush=True)
"""
SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"?", (sys.argv[1], 9))
"""
ECHO = """
import socket
four, six = (socket.socket(f, socket.SOCK_DGRAM) for f in (socket.AF_INET, socket.AF_INET6))
import selectors
chosen = selectors.DefaultSelector()
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
for s in (four, six): s.bind(("", 80)); chosen.register(s, selectors.EVENT_READ)
print("up", flush=True)
while True:
    for key, _ in chosen.select(): key.fileobj.sendto(*key.fileobj.recvfrom(9000))
"""
LARGE = """
import socket, sys
target = sys.argv[1]
s = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1.2); s.connect((target, 80)); s.send(bytes(3000))
print(len(s.recv(9000)))
"""
SHUT = PolicySpec(name="shut", selects=Selector(service="api"), ingress=(), egress=())


@pytest.fixture(
    params=[(LOCAL, 2), (ROUTED, 2), pytest.param((BRIDGED, 1), marks=pytest.mark.slow)],
    ids=["bridge", "routed", "bridged"],
)
def site(request: pytest.FixtureRequest) -> Iterator[tuple[Policed, int]]:
    """A web server on host 2, and the number of the host that others are to stand on."""
    spec, asker = request.param
    with net_hosts(2, "flpn") as hosts:
        made = Policed(hosts, spec)
        try:
            made.start((2, WEB), (asker, STRANGER), (asker, API))
            yield made, asker
        finally:
            made.close()


def test_closed_container_is_reached_by_no_address_of_its_link(site: tuple[Policed, int]) -> None:
    made, asker = site
    near = made.near(2, WEB)
    targets = (near, "255.255.255.255", "224.0.0.1", "ff02::1%eth0")
    assert all(made.shouts(asker, STRANGER, target) for target in targets), "open to all"
    assert made.hears(asker, STRANGER, near)
    for bridge_nf in (0, 1):
        set_bridge_nf(made.hosts, bridge_nf)
        made.police(INGRESS)
        unanswered = side_by_side(made.unanswered, ((asker, STRANGER, target) for target in targets))
        assert all(unanswered.values()), (bridge_nf, unanswered)
        assert made.silent(asker, STRANGER, near), bridge_nf
        assert made.shouts(asker, API, "255.255.255.255"), "whom the policy names may do so"
        assert all(made.hears(asker, API, target) for target in made.web(2)), bridge_nf
        made.police()


def test_container_that_may_go_outside_reaches_no_neighbour_by_its_link(site: tuple[Policed, int]) -> None:
    made, asker = site
    rule = PolicyRule(peers=(PolicyPeer(outside=True),))
    made.police(PolicySpec(name="out", selects=Selector(service="api"), egress=(rule,)))
    targets = (made.near(2, WEB), "255.255.255.255", "224.0.0.1", "ff02::1%eth0")
    unanswered = side_by_side(made.unanswered, ((asker, API, target) for target in targets))
    assert all(unanswered.values()), unanswered
    assert made.hears(asker, STRANGER, made.near(2, WEB))


def test_closed_container_gets_no_frame_for_another_address_of_its(site: tuple[Policed, int]) -> None:
    made, asker = site
    host, beside = made.hosts.hosts[2], "192.0.2.77"
    host.inside(instance_of(2, WEB), "ip", "address", "add", f"{beside}/32", "dev", "lo")
    way = ("ip", "route", "add", beside, "via", made.web(2)[0], "dev", "eth0", "onlink")
    made.hosts.hosts[asker].inside(instance_of(asker, STRANGER), *way)
    listener = Talker(made.space(2, WEB), LISTEN)
    send = (instance_of(asker, STRANGER), SEND, beside)
    try:
        made.hosts.hosts[asker].python_inside(*send)
        assert listener.say("?") == made.party(asker, STRANGER).ipv4
        made.police(INGRESS)
        made.hosts.hosts[asker].python_inside(*send)
        assert listener.say("?") == "nothing"
    finally:
        listener.close()


@pytest.mark.parametrize("spec", [LOCAL, ROUTED, BRIDGED], ids=["bridge", "routed", "bridged"])
def test_container_that_may_send_nothing_reaches_its_host_by_no_address_of_the_link(
    spec: NetworkSpec,
) -> None:
    with net_hosts(1, "flph") as hosts:
        soon = ("dad_transmits", "router_solicitation_delay")  # nobody is to be asked for its addresses
        hosts.hosts[1].run("sysctl", "-qw", *(f"net.ipv6.conf.default.{name}=0" for name in soon))
        made = Policed(hosts, spec)
        made.start((1, API), (1, STRANGER))
        words = ("ip", "-o", "-6", "address", "show", "dev", bridge_name(network_id(1)), "scope", "link")

        def own() -> list[str]:
            found = hosts.hosts[1].run(*words).stdout
            return [] if "tentative" in found else found.split()

        shown = wait_until(own, deadline=5, what="the bridge's own address")
        gateway = f"{shown[shown.index('inet6') + 1].partition('/')[0]}%eth0"
        host = server(f"/run/netns/{hosts.hosts[1].netns}", "host")
        try:
            assert made.hears(1, API, gateway) and made.hears(1, API, gateway, "udp")
            made.police(SHUT)
            assert all(
                side_by_side(made.silent, ((1, API, gateway, kind) for kind in ("tcp", "udp"))).values()
            )
            assert made.hears(1, STRANGER, gateway)
        finally:
            host.close()


@pytest.mark.parametrize("bridge_nf", [0, 1])
def test_datagrams_in_parts_pass_there_and_back(bridge_nf: int) -> None:
    with net_hosts(1, "flpf") as hosts:
        made = Policed(hosts, LOCAL)
        set_bridge_nf(hosts, bridge_nf)
        made.start((1, API), (1, STRANGER))
        hosts.container(1, WEB, 1)
        echo = Talker(str(hosts.hosts[1].run_dir / "ns" / instance_of(1, WEB)), ECHO)
        closed = PolicySpec(name="closed", selects=Selector(service="api"), ingress=())
        try:
            made.police(INGRESS, closed)
            for target in made.web(1):
                ask = (LARGE, target)
                assert hosts.hosts[1].python_inside(instance_of(1, API), *ask).stdout == "3000\n", target
                refused = hosts.hosts[1].python_inside(instance_of(1, STRANGER), *ask, check=False)
                assert refused.returncode != 0, target
        finally:
            echo.close()
