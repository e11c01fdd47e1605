"""Published ports that tell the PROXY protocol: who serves them, and what the proxy is told."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from model.errors import InvalidInput
from model.ids import HostId, InstanceId, NetworkId
from model.policy import Party, PolicyPeer, PolicyPort, PolicyProtocol, PolicyRule, PolicySpec, Selector
from model.spec import NetworkSpec, Publish, Subnet
from model.status import BoundPort
from model.view import NetworkView
from net import portelements, publish
from net.endpoint import InstanceNetwork
from net.host import EndpointRequest, NetworkPlan, PublishRequest
from net.loadbalance import ServiceMember, VirtualService, elements_of
from net.policy import Place, allowance, allows, endpoint_key, host_policies
from net.proxied import proxied, proxy_state
from net.proxied import told as served_by_proxy
from net.proxy.clients import Clients
from net.proxy.ranges import Ranges
from net.proxy.state import Backend, Port, ProxyState, decode, encode, places, port_in, trouble

TOLD = BoundPort(target=8443, published=443, protocol="tcp", proxy_protocol="v2")
PLAIN = BoundPort(target=80, published=80, protocol="tcp")


def request(*ports: BoundPort, number: int = 1, ipv4: str = "10.1.0.9", ipv6: str = "") -> PublishRequest:
    return PublishRequest(instance=InstanceId(f"{number:064x}"), ipv4=ipv4, ipv6=ipv6, ports=ports)


def instance(asked: PublishRequest) -> InstanceNetwork:
    foot = EndpointRequest(
        instance=asked.instance, network="o", ifname="eth0", ipv4=asked.ipv4, ipv6=asked.ipv6
    )
    return InstanceNetwork(namespace="", endpoints=(foot,), published=asked)


def told(*requests: PublishRequest, where: NetworkPlan | None = None) -> ProxyState:
    return proxy_state(map(instance, requests), where)


def plan(*specs: NetworkSpec) -> NetworkPlan:
    views = {spec.name: NetworkView(id=spec.name, spec=spec, vni=0, blocks=()) for spec in specs}
    return NetworkPlan(host=HostId("h"), address="", mtu=1500, vxlan_port=4789, networks=views, peers={})


def test_port_is_served_by_the_proxy_or_by_nft_and_never_by_both() -> None:
    both = request(TOLD, PLAIN)
    assert [port.port for port in told(both).ports] == [443]
    assert publish.elements([both])["port4"] == {"tcp . 80": "10.1.0.9 . 80"}
    assert proxied(both) == (TOLD,) and proxied(None) == ()


def test_container_is_its_ports_backend_by_ipv4_where_it_has_one() -> None:
    assert told(request(TOLD, ipv6="fd00::9")).ports == (
        Port(port=443, header="v2", backends=(Backend(address="10.1.0.9", port=8443),)),
    )
    (only,) = told(request(TOLD, ipv4="", ipv6="fd00::9")).ports
    assert only.backends == (Backend(address="fd00::9", port=8443),)


def test_address_and_clients_are_the_ports_own() -> None:
    (port,) = told(request(replace(TOLD, host_ip="::1", allow=("10.0.0.0/8",)))).ports
    assert (port.addresses, port.allow) == (("::1",), ("10.0.0.0/8",))
    assert told(request(TOLD)).ports[0].addresses == ("0.0.0.0", "::")


def test_containers_of_internal_networks_are_denied() -> None:
    subnets = (Subnet(cidr="10.2.0.0/16"), Subnet(cidr="fd02::/64"))
    shut = NetworkSpec(name="s", internal=True, subnets=subnets)
    open_ = NetworkSpec(name="o", subnets=(Subnet(cidr="10.3.0.0/16"),))
    assert told(request(TOLD), where=plan(shut, open_)).deny == ("10.2.0.0/16", "fd02::/64")


@settings(deadline=None)
@given(st.permutations(range(1, 6)))
def test_order_of_requests_does_not_matter(order: list[int]) -> None:
    def made(number: int) -> PublishRequest:
        return request(replace(TOLD, published=443 + number % 3, host_ip=f"10.0.0.{number}"), number=number)

    assert told(*map(made, order)) == told(*map(made, sorted(order)))


def test_state_is_read_back_as_it_was_written() -> None:
    state = told(request(TOLD), request(replace(TOLD, host_ip="10.0.0.1", published=444)), where=plan())
    assert decode(encode(state)) == state


def test_two_ports_at_one_place_are_refused() -> None:
    state = ProxyState(ports=(Port(port=1, header="v1"), Port(port=1, header="v2", host_ip="::")))
    with pytest.raises(InvalidInput, match="twice"):
        places(state)


def policed(*rules: PolicyRule) -> NetworkPlan:
    """The container of `request` behind a policy with these rules."""
    policy = PolicySpec(name="p", selects=Selector(), ingress=rules)
    network = NetworkId("o")
    party = Party(name="x", network=network, network_name="o", service="", labels={}, ipv4="10.1.0.9")
    place = Place(network=network, name="o", subnets=("10.1.0.0/16",), fleet=("10.1.0.0/16",))
    key = endpoint_key(request().instance, network)
    return replace(plan(), policies=host_policies([policy], {key: party}, {network: place}))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=4),
    st.sampled_from((0, 8443, 8444)),
    st.sampled_from(("tcp", "udp")),
    st.integers(0, 255),
)
def test_policies_let_in_through_the_proxy_whom_they_let_in_without(
    ranges: list[tuple[int, int]], port: int, protocol: PolicyProtocol, last: int
) -> None:
    cidrs = [str(ipaddress.ip_network(f"192.0.2.{a}/{bits}", strict=False)) for a, bits in ranges]
    rule = PolicyRule(
        peers=tuple(PolicyPeer(cidr=cidr) for cidr in cidrs) or (PolicyPeer(cidr="198.51.100.0/24"),),
        ports=(PolicyPort(port=port, protocol=protocol),),
    )
    where = policed(rule)
    (found,) = told(request(TOLD), where=where).ports
    (only,) = found.backends
    assert only.among is not None
    client = f"192.0.2.{last}"
    wanted = allows(allowance(rule, Place(network=NetworkId("o"), name="o", subnets=())), client, "tcp", 8443)
    assert (client in Ranges(only.among)) == wanted


def among(where: NetworkPlan) -> tuple[str, ...] | None:
    return told(request(TOLD), where=where).ports[0].backends[0].among


def test_container_that_no_policy_selects_is_open_and_one_without_rules_closed() -> None:
    assert among(plan()) is None
    assert among(policed()) == ()
    assert among(policed(PolicyRule())) == ("0.0.0.0/0", "::/0")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=6), st.integers(0, 70)
)
def test_address_is_in_ranges_when_it_is_in_one_of_them(spans: list[list[int]], number: int) -> None:
    def address(n: int) -> str:
        return str(ipaddress.IPv4Address(0xC0000200 + n))

    ranges = Ranges(f"{address(low)}-{address(high)}" for low, high in spans)
    assert (address(number) in ranges) == any(low <= number <= high for low, high in spans)
    assert "fd00::1" not in ranges


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.2-10.0.0.1", "10.0.0.1-fd00::1", "x", ""])
def test_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Ranges([text])


@pytest.mark.parametrize(
    ("source", "let_in"),
    [
        ("10.0.0.7", True),
        ("10.0.0.8", False),
        ("192.0.2.1", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("fd00::1", False),
    ],
)
def test_policies_judge_clients_but_not_the_host_itself(source: str, let_in: bool) -> None:
    one = Backend(address="10.9.0.1", port=80, among=("10.0.0.7",))
    other = Backend(address="10.9.0.2", port=80)
    assert bool(Clients(Port(port=1, header="v1", backends=(one,))).backends(source, "192.0.2.1")) is let_in
    both = Clients(Port(port=1, header="v1", backends=(one, other))).backends(source, "192.0.2.1")
    assert list(both) == ([one, other] if let_in else [other])


def test_list_of_a_port_counts_beside_policies() -> None:
    backend = Backend(address="10.9.0.1", port=80, among=("10.0.0.0/8",))
    clients = Clients(Port(port=1, header="v1", backends=(backend,), allow=("10.0.0.7", "10.0.0.8/31")))
    assert [bool(clients.backends(f"10.0.0.{n}", "x")) for n in (6, 7, 9)] == [False, True, True]
    assert not clients.backends("127.0.0.1", "x"), "a list holds for the host too"


def test_ports_of_services_lead_to_ready_members_everywhere_and_are_in_no_nft_map() -> None:
    wish = Publish(target=8443, published=443, mode="ingress", proxy_protocol="v1", allow=("192.0.2.0/24",))
    members = (ServiceMember(ipv4="10.9.1.1"), ServiceMember(ipv4="10.9.0.5", inner4="10.1.0.9"))
    service = VirtualService(members=members, ports=(wish, Publish(target=80, published=80)))
    (found,) = proxy_state([], None, [service]).ports
    backends = tuple(Backend(address=a, port=8443) for a in ("10.9.1.1", "10.1.0.9"))
    assert found == Port(port=443, header="v1", backends=backends, allow=wish.allow)
    elements = elements_of(service)
    assert list(elements["port4"]) == [portelements.key("tcp", 80)]
    assert served_by_proxy(service) and not served_by_proxy(VirtualService())


def test_policies_judge_members_that_are_here() -> None:
    wish = Publish(target=8443, published=443, mode="ingress", proxy_protocol="v1")
    service = VirtualService(
        members=(ServiceMember(ipv4="10.1.0.9"), ServiceMember(ipv4="10.1.1.9")), ports=(wish,)
    )
    (found,) = proxy_state([instance(request())], policed(), [service]).ports
    assert [backend.among for backend in found.backends] == [(), None], "the other's host judges that one"


def test_trouble_tells_its_port() -> None:
    assert port_in(trouble(443, "cannot listen on ::: Address already in use")) == 443
    assert port_in("published ports: the state is refused: x") == port_in("names: port 53") == 0
