"""Who is on which network, over all hosts: what names and load balancing need of it. Pure.

Made of reports, not of records: never stored by the controller, known again once the hosts have said Hello.
Each host hears of the networks that it carries, whole at the start of a session, then by differences.
Invariant: `apply(diff(a, b), a) == b`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from model.factrules import address_fault
from model.ids import HostId, InstanceId, NetworkId, ServiceId
from model.spec import Struct


class Member(Struct):
    """A running instance with an endpoint on the network."""

    name: str
    host: HostId
    service: ServiceId | None = None
    service_name: str = ""
    slot: int = 0
    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    ready: bool = True
    """It takes new connections (`model.readiness`). Only then a service's name leads to it."""
    running: bool = True
    """False: it is about to start with these addresses, or to end. Only fleets with policies tell of such, so
    that other hosts let it in from its first packet on."""
    labels: Mapping[str, str] = {}
    """Those of its labels by which some policy tells peers."""


Members = Mapping[InstanceId, Member]


class Directory(Struct):
    networks: Mapping[NetworkId, Members] = {}


class DirectoryDelta(Struct):
    """New and changed members, and those that left. A network without members is not in a Directory."""

    put: Mapping[NetworkId, Members] = {}
    gone: Mapping[NetworkId, tuple[InstanceId, ...]] = {}

    @property
    def empty(self) -> bool:
        return not self.put and not self.gone


def diff(old: Directory, new: Directory) -> DirectoryDelta:
    """What turns `old` into `new`."""
    put: dict[NetworkId, Members] = {}
    gone: dict[NetworkId, tuple[InstanceId, ...]] = {}
    for network in sorted({*old.networks, *new.networks}):
        before, after = old.networks.get(network, {}), new.networks.get(network, {})
        if before is after:
            continue
        changed = {i: member for i, member in after.items() if before.get(i) != member}
        left = tuple(sorted(i for i in before if i not in after))
        if changed:
            put[network] = changed
        if left:
            gone[network] = left
    return DirectoryDelta(put=put, gone=gone)


def legible(delta: DirectoryDelta) -> DirectoryDelta:
    """The same without what is no address: it came from another host, and names, services and policies of
    this one are made of the whole."""
    put = {
        network: {i: legible_member(m) for i, m in members.items()} for network, members in delta.put.items()
    }
    return DirectoryDelta(put=put, gone=delta.gone)


def legible_member(member: Member) -> Member:
    four, six = _legible(member.ipv4, 4), _legible(member.ipv6, 6)
    same = (four, six) == (member.ipv4, member.ipv6)
    return member if same else replace(member, ipv4=four, ipv6=six)


def _legible(text: str, version: int) -> str:
    return text if not text or (not address_fault(text) and (":" in text) == (version == 6)) else ""


def narrowed(delta: DirectoryDelta, directory: Directory) -> DirectoryDelta:
    """What of a delta would change the directory. `apply` leads to the same with both."""
    put, gone = dict[NetworkId, Members](), dict[NetworkId, tuple[InstanceId, ...]]()
    for network, members in delta.put.items():
        known, left = directory.networks.get(network, {}), delta.gone.get(network, ())
        if new := {i: m for i, m in members.items() if known.get(i) != m and i not in left}:
            put[network] = new
    for network, idents in delta.gone.items():
        known = directory.networks.get(network, {})
        if here := tuple(i for i in idents if i in known):
            gone[network] = here
    return DirectoryDelta(put=put, gone=gone)


def apply(delta: DirectoryDelta, directory: Directory) -> Directory:
    networks = dict(directory.networks)
    for network in {*delta.put, *delta.gone}:
        members = {**networks.get(network, {}), **delta.put.get(network, {})}
        for ident in delta.gone.get(network, ()):
            members.pop(ident, None)
        if members:
            networks[network] = members
        else:
            networks.pop(network, None)
    return Directory(networks=networks)
