"""`--network` and `-p` in all their forms, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from cli.parse.networks import attachments, aux_addresses, bandwidth, endpoint, parse_network
from cli.parse.ports import parse_publish, parse_service_publish
from model.errors import InvalidInput
from model.exposed import exposed
from model.quantity import parse_rate
from model.spec import Attachment, ContainerSpec, EndpointWish, Publish
from model.validate import validate_container, validate_endpoint

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("web", Attachment(network="web")),
        ("container:db", Attachment(network="container:db")),
        ("name=web", Attachment(network="web")),
        (
            "name=web,ip=10.1.0.5,ip6=fd00::5,alias=a,alias=b,mac-address=02:00:00:00:00:01,gw-priority=-3",
            Attachment(network="web", ipv4="10.1.0.5", ipv6="fd00::5", aliases=("a", "b"),
                       mac="02:00:00:00:00:01", priority=-3),
        ),
        ("web:ip=10.1.0.5,alias=a", Attachment(network="web", ipv4="10.1.0.5", aliases=("a",))),
        ("name=web,ip=10.1.0.5,ip=10.1.0.8-10.1.0.9,ip6=fd00::/120",
         Attachment(network="web", ipv4="10.1.0.5,10.1.0.8-10.1.0.9", ipv6="fd00::/120")),
        ("name=web,ip=keep", Attachment(network="web", keep_address=True)),
        ("web:ip6=fd00::5", Attachment(network="web", ipv6="fd00::5")),
        (f"name=web,driver-opt={IFNAME}=lan0", Attachment(network="web", ifname="lan0")),
        (
            f'name=web,"driver-opt={SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.mtu=9",'
            "alias=a",
            Attachment(network="web", aliases=("a",), sysctls={"net.ipv4.conf.IFNAME.log_martians": "1",
                                                               "net.ipv4.conf.IFNAME.mtu": "9"}),
        ),
    ],
)  # fmt: skip
def test_network_forms(text: str, wanted: Attachment) -> None:
    assert parse_network(text) == wanted


@pytest.mark.parametrize(
    "text", ["ip=10.1.0.5", "name=web,colour=red", "name=web,ip", "name=web,gw-priority=x",
             "name=web,driver-opt=speed=9", f"name=web,driver-opt={IFNAME}", "web:colour=red"]
)  # fmt: skip
def test_network_that_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_network(text)


def test_bare_endpoint_flags_belong_to_the_first_network() -> None:
    flags: dict[str, Any] = {"network": ("name=a,alias=x", "b"), "ip": "10.0.0.9"}
    first, second = attachments(flags)
    assert (first.network, first.ipv4, first.aliases) == ("a", "10.0.0.9", ("x",))
    assert second == Attachment(network="b")
    assert attachments({"ip6": "fd00::2"})[0] == Attachment(network="bridge", ipv6="fd00::2")
    with pytest.raises(InvalidInput, match="--network-alias"):
        attachments({**flags, "network_alias": ("y",)})


@pytest.mark.parametrize("mode", ["host", "none", "container:x"])
def test_modes_take_no_addresses_or_names(mode: str) -> None:
    spec = ContainerSpec(image="x", networks=attachments({"network": (mode,), "ip": "10.0.0.9"}))
    assert "takes no addresses" in " ".join(map(str, validate_container(spec)))
    spec = ContainerSpec(image="x", networks=attachments({"network": (mode, "other")}))
    assert "excludes other networks" in " ".join(map(str, validate_container(spec)))


def test_two_interfaces_of_one_name_are_refused() -> None:
    option = f"driver-opt={IFNAME}=lan0"
    spec = ContainerSpec(
        image="x", networks=(parse_network(f"name=a,{option}"), parse_network(f"name=b,{option}"))
    )
    assert "two interfaces can't be called lan0" in " ".join(map(str, validate_container(spec)))


def test_flags_of_connect() -> None:
    flags = {"alias": ("a",), "ip": "10.0.0.9", "gw_priority": 2, "driver_opt": (f"{IFNAME}=lan0",)}
    assert endpoint(flags) == EndpointWish(aliases=("a",), ipv4="10.0.0.9", priority=2, ifname="lan0")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8000-8002:80", [Publish(target=80, published=8000, published_to=8002)]),
        ("127.0.0.1:8000-8001:80/udp",
         [Publish(target=80, published=8000, published_to=8001, protocol="udp", host_ip="127.0.0.1")]),
        ("8000-8001:80-81", [Publish(target=80, published=8000), Publish(target=81, published=8001)]),
        ("[::1]:80:80", [Publish(target=80, published=80, host_ip="::1")]),
        ("[::1]::80", [Publish(target=80, host_ip="::1")]),
        ("127.0.0.1::80", [Publish(target=80, host_ip="127.0.0.1")]),
        ("published=8080,target=80,allow=10.0.0.0/8,allow=192.0.2.1",
         [Publish(target=80, published=8080, allow=("10.0.0.0/8", "192.0.2.1"))]),
        ("published=443,target=8443,proxy-protocol=v2",
         [Publish(target=8443, published=443, proxy_protocol="v2")]),
        ("target=80,host_ip=[::1],protocol=udp", [Publish(target=80, protocol="udp", host_ip="::1")]),
    ],
)  # fmt: skip
def test_publish_forms(text: str, wanted: list[Publish]) -> None:
    assert parse_publish(text) == wanted


@pytest.mark.parametrize(
    "text", ["0:80", "65536:80", "80:0", "8000-8001:80-82", "8001-8000:80-81", "80:80/icmp", "[::1:80:80",
             "1:2:3:4", "published=80", "target=80,colour=red", "target=80,mode=sideways",
             "target=80,proxy-protocol=v3"]
)  # fmt: skip
def test_publish_that_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_publish(text)


@pytest.mark.parametrize(
    ("port", "words"),
    [
        (Publish(target=80, published=90, published_to=80), "not a port above 90"),
        (Publish(target=80, published=90, published_to=65536), "not a port above 90"),
        (Publish(target=80, allow=("10.0.0.1/8",)), "not a range"),
        (Publish(target=80, allow=("fe80::%1/64",)), "not a range"),
        (Publish(target=80, mode="ingress"), "only services publish on every host"),
        (Publish(target=80, on=("node.labels.edge==true",)), "for mode=ingress only"),
        (Publish(target=80, mode="ingress", host_ip="192.0.2.1"), "all addresses of the hosts"),
        (Publish(target=80, mode="ingress", on=("edge",)), "invalid constraint"),
        (Publish(target=80, proxy_protocol="v1", protocol="udp"), "udp has none"),
        (Publish(target=80, proxy_protocol="v2", protocol="sctp"), "sctp has none"),
        (Publish(target=80, host_ip="010.0.0.1"), "not an IP address"),
        (Publish(target=65536), "not a port"),
        (Publish(target=80, host_ip="::1"), "the kernel routes ::1 to no container"),
    ],
)
def test_port_that_cannot_be_is_refused(port: Publish, words: str) -> None:
    assert words in " ".join(map(str, validate_container(ContainerSpec(image="x", ports=(port,)))))


@pytest.mark.parametrize(
    ("one", "two", "clash"),
    [("", "", True), ("", "127.0.0.1", True), ("0.0.0.0", "127.0.0.1", True), ("0.0.0.0", "::", False),
     ("10.0.0.1", "127.0.0.1", False), ("nonsense", "", False)],
)  # fmt: skip
def test_port_on_two_addresses_is_published_twice_where_they_overlap(one: str, two: str, clash: bool) -> None:
    ports = tuple(Publish(target=80, published=8080, host_ip=ip) for ip in (one, two))
    problems = " ".join(map(str, validate_container(ContainerSpec(image="x", ports=ports))))
    assert ("published twice" in problems) is clash


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ("db", ""), ("db.example", ""), ("a" * 63, ""), ("xn--bcher-kva", ""), ("my_db", ""),
        ("a" * 64, "63 characters"), ("db." + "a" * 64, "63 characters"), ("db..x", "63 characters"),
        ("localhost", "own"), ("db.LOCALHOST", "own"), ("*", "invalid"), ("bücher", "invalid"),
        ("", "invalid"), ("-x", "invalid"), ("a b", "invalid"), ("a" * 129, "invalid"),
    ],
)  # fmt: skip
def test_alias_is_a_name_that_can_be_asked_for(alias: str, words: str) -> None:
    spec = ContainerSpec(image="x", networks=(Attachment(network="n", aliases=(alias,)),))
    problems = " ".join(map(str, validate_container(spec)))
    assert words in problems and bool(problems) is bool(words)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("dns_search", ("example.com", "_x.example", "a.b.c.", "."), ""),
        ("dns_search", ("example.com",) * 32, ""),
        ("dns_search", ("example.com",) * 33, "more than 32 domains"),
        ("dns_search", ("a" * 60 + ".b" * 90,) * 10, "2048 bytes"),
        ("dns_search", ("a b",), "not a domain"),
        ("dns_search", ("a\nnameserver 9.9.9.9",), "not a domain"),
        ("dns_search", ("a" * 64 + ".example",), "not a domain"),
        ("dns_options", ("ndots:2", "use-vc"), ""),
        ("dns_options", ("x\ny",), "no option"),
        ("dns", ("10.0.0.1", "fe80::1%eth0"), ""),
        ("dns", ("dns.example",), "not an IP address"),
        ("extra_hosts", ("db:10.0.0.1", "db=[fd00::1]", "up:host-gateway"), ""),
        ("extra_hosts", ("a b:10.0.0.1",), "NAME:ADDRESS"),
        ("extra_hosts", ("a\n10.0.0.9 b:10.0.0.1",), "NAME:ADDRESS"),
    ],
)
def test_words_of_resolv_conf_and_hosts_stay_words(field: str, value: tuple[str, ...], words: str) -> None:
    problems = " ".join(map(str, validate_container(ContainerSpec(image="x", **{field: value}))))
    assert words in problems and bool(problems) is bool(words)


def test_proxied_port_may_be_on_ipv6_loopback() -> None:
    """The proxy listens there itself; nothing is routed."""
    port = Publish(target=80, host_ip="::1", proxy_protocol="v2")
    assert not validate_container(ContainerSpec(image="x", ports=(port,)))


def test_services_publish_on_all_hosts_unless_told() -> None:
    assert parse_service_publish("80")[0].mode == "ingress"
    assert parse_service_publish("target=80,mode=host")[0].mode == "host"
    assert parse_service_publish("target=80")[0].mode == "ingress"


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", 1),
        ("53/udp", 1),
        ("3000-3005/tcp", 6),
        ("0", 0),
        ("70000", 0),
        ("5-4", 0),
        ("x", 0),
        ("80/x", 0),
    ],
)
def test_exposed_ports(text: str, ports: int) -> None:
    assert len(exposed(text)) == ports


def test_aux_addresses_go_to_their_subnets() -> None:
    cidrs = ("10.1.0.0/24", "fd00::/64")
    assert aux_addresses(cidrs, ("printer=10.1.0.9", "10.1.0.10", "r=fd00::9")) == {
        "10.1.0.0/24": ("10.1.0.9", "10.1.0.10"),
        "fd00::/64": ("fd00::9",),
    }
    for bad in ("a=10.2.0.1", "a=b", ""):
        with pytest.raises(InvalidInput):
            aux_addresses(cidrs, (bad,))


@pytest.mark.parametrize(
    ("text", "bits"),
    [("100mbit", 10**8), ("1.5gbit", 1_500_000_000), ("512k", 512_000), ("0", 0), ("9000bit", 9000)],
)
def test_rates_are_bits_a_second_in_thousands(text: str, bits: int) -> None:
    assert parse_rate(text) == bits
    assert parse_network(f"name=a,bandwidth-in={text}").bandwidth_in == bits


@pytest.mark.parametrize("text", ["fast", "-1", "10mib", "10mbps", "1e9", ""])
def test_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="bandwidth"):
        parse_rate(text)


def test_bandwidth_names_a_network_and_what_changes() -> None:
    assert bandwidth("in=100mbit") == ("", {"in": 10**8})
    assert bandwidth("name=back,in=0,out=20mbit") == ("back", {"in": 0, "out": 20_000_000})
    for wrong in ("name=back", "in", "up=1mbit", "100mbit"):
        with pytest.raises(InvalidInput):
            bandwidth(wrong)


def test_bandwidth_out_of_range_is_told_with_its_path() -> None:
    wish = EndpointWish(bandwidth_in=7999, bandwidth_out=33 * 10**9)
    assert [p.path for p in validate_endpoint(wish, "e")] == ["e.bandwidth_in", "e.bandwidth_out"]
    assert not list(validate_endpoint(EndpointWish(bandwidth_in=8000, bandwidth_out=32 * 10**9), "e"))
