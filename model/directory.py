"""Who is on which network, over all hosts: what names and load balancing need of it. Pure.

Made of reports, not of records: never stored by the controller, known again once the hosts have said Hello.
Each host hears of the networks that it carries, whole at the start of a session, then by differences.
Invariant: `apply(diff(a, b), a) == b`.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def apply(delta: DirectoryDelta, directory: Directory) -> Directory:
    networks = dict(directory.networks)
    for network in {*delta.put, *delta.gone}:
        left = set(delta.gone.get(network, ()))
        members = {**networks.get(network, {}), **delta.put.get(network, {})}
        kept = {i: member for i, member in members.items() if i not in left}
        if kept:
            networks[network] = kept
        else:
            networks.pop(network, None)
    return Directory(networks=networks)
