"""Interface names and ways out of an instance's networks: tables."""

from __future__ import annotations

import pytest

from agent import feet
from agent.etcfiles import hosts, moved
from agent.feet import WaysOut
from model.ids import NetworkId
from model.records import ResolvedAttachment
from model.spec import ContainerSpec, NetworkSpec, Subnet
from model.status import Endpoint
from model.view import NetworkView

A, B, C, INNER = (NetworkId(letter * 64) for letter in "abci")
NONE = NetworkId("")


def on(network: NetworkId, **wish: object) -> ResolvedAttachment:
    return ResolvedAttachment(network=network, **wish)  # type: ignore[arg-type]


def foot(network: NetworkId, ifname: str, ipv4: str = "", ipv6: str = "") -> Endpoint:
    return Endpoint(network=network, network_name=network[:1], ifname=ifname, ipv4=ipv4, ipv6=ipv6)


def view(network: NetworkId, *, ipv6: bool = False, internal: bool = False) -> NetworkView:
    subnets = [Subnet(cidr="10.1.0.0/16"), *([Subnet(cidr="fd00::/64")] if ipv6 else [])]
    spec = NetworkSpec(name=network[:1], subnets=tuple(subnets), internal=internal)
    return NetworkView(id=network, spec=spec, vni=1, blocks=())


VIEWS = {A: view(A), B: view(B, ipv6=True), C: view(C), INNER: view(INNER, ipv6=True, internal=True)}


@pytest.mark.parametrize(
    ("wanted", "standing", "names"),
    [
        ([on(A), on(B)], [], {A: "eth0", B: "eth1"}),
        ([on(A), on(C)], [foot(A, "eth0"), foot(B, "eth1")], {A: "eth0", C: "eth2"}),
        ([on(B), on(C)], [foot(B, "eth1")], {B: "eth1", C: "eth0"}),
        ([on(A, ifname="lan0"), on(B)], [], {A: "lan0", B: "eth0"}),
        ([on(A), on(B, ifname="eth0")], [], {A: "eth1", B: "eth0"}),
        ([], [foot(A, "eth0")], {}),
    ],
)
def test_interfaces_keep_their_names_and_new_ones_take_the_lowest_free(
    wanted: list[ResolvedAttachment], standing: list[Endpoint], names: dict[NetworkId, str]
) -> None:
    assert feet.names(wanted, standing) == names


@pytest.mark.parametrize(
    ("wanted", "ways"),
    [
        ([on(A), on(C)], WaysOut(ipv4=A)),
        ([on(A), on(C, priority=1)], WaysOut(ipv4=C)),
        ([on(A, priority=-1), on(C)], WaysOut(ipv4=C)),
        ([on(A), on(B)], WaysOut(ipv4=A, ipv6=B)),
        ([on(INNER), on(B)], WaysOut(ipv4=B, ipv6=B)),
        ([on(INNER, priority=9)], WaysOut()),
        ([on(NetworkId("x" * 64)), on(A)], WaysOut(ipv4=A)),
        ([], WaysOut()),
    ],
)
def test_way_out_is_the_first_of_the_highest_priority_that_leads_out(
    wanted: list[ResolvedAttachment], ways: WaysOut
) -> None:
    assert feet.ways_out(wanted, VIEWS) == ways


def test_ports_are_served_where_answers_leave() -> None:
    stand = [
        foot(INNER, "eth0", "10.9.0.2", "fd09::2"),
        foot(A, "eth1", "10.1.0.2"),
        foot(B, "eth2", "", "fd::2"),
    ]
    assert feet.led(WaysOut(ipv4=A, ipv6=B), stand) == ("10.1.0.2", "fd::2")
    assert feet.led(WaysOut(), stand[:1]) == ("10.9.0.2", "fd09::2")
    assert feet.led(WaysOut(), []) == ("", "")
    assert feet.led(WaysOut(ipv4=A), stand) == ("10.1.0.2", "")


def test_hosts_file_follows_the_endpoints_and_keeps_what_others_wrote() -> None:
    spec = ContainerSpec(image="x", extra_hosts=("db:10.0.0.9",))
    old, new = [foot(A, "eth0", "10.1.0.2")], [foot(B, "eth1", "10.2.0.2", "fd::2")]
    text = hosts(spec, "box", old, host_gateway="10.1.0.1") + "1.2.3.4\tby-hand\n"
    after = moved(text, spec, "box", new)
    assert after.splitlines()[-4:] == ["10.0.0.9\tdb", "1.2.3.4\tby-hand", "10.2.0.2\tbox", "fd::2\tbox"]
    assert "10.1.0.2" not in after and "localhost" in after
    assert moved(after, spec, "box", new) == after
    assert moved(moved(after, spec, "box", old), spec, "box", new) == after
    assert "10.2.0.2" not in moved(after, spec, "box", ())


def test_hosts_file_keeps_an_address_that_was_asked_for_under_its_own_name() -> None:
    spec = ContainerSpec(image="x", domainname="lan", extra_hosts=("box.lan=10.0.0.9",))
    text = hosts(spec, "box", [foot(A, "eth0", "10.1.0.2")], host_gateway="")
    assert moved(text, spec, "box", ()).splitlines()[-1] == "10.0.0.9\tbox.lan"
