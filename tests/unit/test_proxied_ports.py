"""Published ports that tell the PROXY protocol: who serves them, and what the proxy is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from model.errors import InvalidInput
from model.ids import HostId, InstanceId
from model.spec import NetworkSpec, Subnet
from model.status import BoundPort
from model.view import NetworkView
from net import publish
from net.host import NetworkPlan, PublishRequest
from net.proxied import proxied, proxy_state
from net.proxy.state import Backend, Port, ProxyState, decode, encode, places

TOLD = BoundPort(target=8443, published=443, protocol="tcp", proxy_protocol="v2")
PLAIN = BoundPort(target=80, published=80, protocol="tcp")


def request(*ports: BoundPort, number: int = 1, ipv4: str = "10.1.0.9", ipv6: str = "") -> PublishRequest:
    return PublishRequest(instance=InstanceId(f"{number:064x}"), ipv4=ipv4, ipv6=ipv6, ports=ports)


def plan(*specs: NetworkSpec) -> NetworkPlan:
    views = {spec.name: NetworkView(id=spec.name, spec=spec, vni=0, blocks=()) for spec in specs}
    return NetworkPlan(host=HostId("h"), address="", mtu=1500, vxlan_port=4789, networks=views, peers={})


def test_port_is_served_by_the_proxy_or_by_nft_and_never_by_both() -> None:
    both = request(TOLD, PLAIN)
    assert [port.port for port in proxy_state([both], None).ports] == [443]
    assert publish.elements([both])["port4"] == {"tcp . 80": "10.1.0.9 . 80"}
    assert proxied(both) == (TOLD,) and proxied(None) == ()


def test_container_is_its_ports_backend_by_ipv4_where_it_has_one() -> None:
    assert proxy_state([request(TOLD, ipv6="fd00::9")], None).ports == (
        Port(port=443, header="v2", backends=(Backend(address="10.1.0.9", port=8443),)),
    )
    (only,) = proxy_state([request(TOLD, ipv4="", ipv6="fd00::9")], None).ports
    assert only.backends == (Backend(address="fd00::9", port=8443),)


def test_address_and_clients_are_the_ports_own() -> None:
    (port,) = proxy_state([request(replace(TOLD, host_ip="::1", allow=("10.0.0.0/8",)))], None).ports
    assert (port.addresses, port.allow) == (("::1",), ("10.0.0.0/8",))
    assert proxy_state([request(TOLD)], None).ports[0].addresses == ("0.0.0.0", "::")


def test_containers_of_internal_networks_are_denied() -> None:
    subnets = (Subnet(cidr="10.2.0.0/16"), Subnet(cidr="fd02::/64"))
    shut = NetworkSpec(name="s", internal=True, subnets=subnets)
    open_ = NetworkSpec(name="o", subnets=(Subnet(cidr="10.3.0.0/16"),))
    assert proxy_state([request(TOLD)], plan(shut, open_)).deny == ("10.2.0.0/16", "fd02::/64")


@given(st.permutations(range(1, 6)))
def test_order_of_requests_does_not_matter(order: list[int]) -> None:
    def made(number: int) -> PublishRequest:
        return request(replace(TOLD, published=443 + number % 3, host_ip=f"10.0.0.{number}"), number=number)

    assert proxy_state(map(made, order), None) == proxy_state(map(made, sorted(order)), None)


def test_state_is_read_back_as_it_was_written() -> None:
    state = proxy_state([request(TOLD), request(replace(TOLD, host_ip="10.0.0.1", published=444))], plan())
    assert decode(encode(state)) == state


def test_two_ports_at_one_place_are_refused() -> None:
    state = ProxyState(ports=(Port(port=1, header="v1"), Port(port=1, header="v2", host_ip="::")))
    with pytest.raises(InvalidInput, match="twice"):
        places(state)
