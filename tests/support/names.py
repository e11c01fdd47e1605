"""A small network with names, and questions about it."""

from __future__ import annotations

from collections.abc import Mapping

import dns.flags
import dns.message
import dns.rdatatype

from model.directory import Member
from model.ids import HostId, InstanceId, NetworkId
from model.spec import NetworkSpec, Subnet
from model.status import Endpoint
from model.view import NetworkView
from net import names
from net.names import Asker, Vips
from net.resolver.answer import Answerer, Forward
from net.resolver.state import ResolverState

BACK, FRONT, SHUT = NetworkId("b" * 64), NetworkId("f" * 64), NetworkId("5" * 64)
HOST = HostId("h")


def view(ident: NetworkId, name: str, number: int, *, internal: bool = False) -> NetworkView:
    subnets = (Subnet(cidr=f"10.{number}.0.0/16"), Subnet(cidr=f"fd00:{number:x}::/64"))
    spec = NetworkSpec(name=name, subnets=subnets, internal=internal)
    return NetworkView(id=ident, spec=spec, vni=0, blocks=())


NETWORKS = {
    BACK: view(BACK, "Back", 1),
    FRONT: view(FRONT, "front", 2),
    SHUT: view(SHUT, "shut", 3, internal=True),
}


def instance(number: int) -> InstanceId:
    return InstanceId(f"{number:064x}")


def ident(number: int) -> InstanceId:
    return InstanceId(f"{number:012x}" + "0" * 52)


def replica(number: int, *, ready: bool = True, aliases: tuple[str, ...] = (), ipv6: str = "") -> Member:
    return Member(
        name=f"web.{number}.xyz{number}",
        host=HOST,
        service_name="web",
        slot=number,
        aliases=aliases,
        ipv4=f"10.1.0.{number}",
        ipv6=ipv6,
        ready=ready,
    )


def plain(name: str, ipv4: str = "", *, ipv6: str = "", ready: bool = True, aliases: str = "") -> Member:
    return Member(name=name, host=HOST, ipv4=ipv4, ipv6=ipv6, ready=ready, aliases=tuple(aliases.split()))


def asker(*feet: tuple[NetworkId, str], dns: tuple[str, ...] = ()) -> Asker:
    endpoints = tuple(
        Endpoint(
            network=network,
            network_name="",
            ifname=f"eth{order}",
            ipv4="" if ":" in address else address,
            ipv6=address if ":" in address else "",
        )
        for order, (network, address) in enumerate(feet)
    )
    return Asker(endpoints=endpoints, dns=dns)


def state(
    members: Mapping[NetworkId, Mapping[InstanceId, Member]],
    *askers: Asker,
    vips: Vips | None = None,
    networks: Mapping[NetworkId, NetworkView] = NETWORKS,
) -> ResolverState:
    zones = {
        network: names.zone(found, members.get(network, {}), vips)
        for network, found in networks.items()
        if names.has_names(found)
    }
    return names.resolver_state(zones, names.clients(askers, networks))


def query(name: str, kind: str = "A", *, edns: int | None = None, payload: int = 1232) -> dns.message.Message:
    if edns is None:
        return dns.message.make_query(name, kind)
    return dns.message.make_query(name, kind, use_edns=edns, payload=payload)


class Resolved:
    """An answer, read by another's library."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.message = dns.message.from_wire(data, ignore_trailing=False, raise_on_truncation=False)

    @property
    def rcode(self) -> str:
        return str(self.message.rcode().name)

    @property
    def cut_off(self) -> bool:
        return bool(self.message.flags & dns.flags.TC)

    @property
    def values(self) -> list[str]:
        return sorted(str(item) for rrset in self.message.answer for item in rrset)

    @property
    def extras(self) -> list[str]:
        return sorted(f"{rrset.name} {item}" for rrset in self.message.additional for item in rrset)


def ask(
    state: ResolverState | Answerer,
    source: str,
    name: str,
    kind: str = "A",
    *,
    udp: bool = True,
    turn: int = 0,
    payload: int | None = None,
) -> Resolved | Forward:
    answerer = state if isinstance(state, Answerer) else Answerer(state)
    words = query(name, kind, edns=None if payload is None else 0, payload=payload or 1232)
    found = answerer.answer(words.to_wire(), source, turn, udp=udp)
    assert found is not None
    return found if isinstance(found, Forward) else Resolved(found)


def resolved(
    state: ResolverState | Answerer, source: str, name: str, kind: str = "A"
) -> tuple[str, list[str]]:
    found = ask(state, source, name, kind)
    assert isinstance(found, Resolved), f"{name} is forwarded"
    return found.rcode, found.values
