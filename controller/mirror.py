"""Containers that hosts made on their own sockets, as the hosts told last. In memory: each Hello tells all.

Invariant: a container is known under the host that tells of it, with that host as its own and no service;
nothing here is ever written, and nothing that the fleet made is hidden by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from aio.waits import Waits
from model.factrules import MOST_WORDS
from model.ids import HostId, InstanceId, resolve
from model.own import MOST, OwnContainer
from model.records import Instance
from model.status import Phase


class Mirror:
    def __init__(self) -> None:
        self._by_host: dict[HostId, dict[InstanceId, OwnContainer]] = {}
        self._holders: dict[InstanceId, HostId] = {}
        self._instances: Mapping[HostId, Sequence[Instance]] | None = None
        self.waits = Waits()

    @property
    def by_host(self) -> Mapping[HostId, Sequence[Instance]]:
        """For the scheduler: what each host has of its own. Made anew only after something was told."""
        if self._instances is None:
            self._instances = {
                host: tuple(one.instance for one in own.values()) for host, own in self._by_host.items()
            }
        return self._instances

    def all(self) -> Sequence[OwnContainer]:
        return [one for own in self._by_host.values() for one in own.values()]

    def find(self, ref: str) -> OwnContainer:
        """By id, name or unique prefix. Raises NotFound, Ambiguous."""
        known = {one.instance.id: one for one in self.all()}
        return known[InstanceId(resolve("container", ref, ((i, o.instance.name) for i, o in known.items())))]

    def get(self, ident: InstanceId) -> OwnContainer | None:
        host = self._holders.get(ident)
        return None if host is None else self._by_host[host][ident]

    def holder(self, name: str) -> OwnContainer | None:
        """Who has this name."""
        return next((one for one in self.all() if one.instance.name == name), None)

    # -- what hosts tell ----------------------------------------------------------------------------
    def greet(self, host: HostId, told: Iterable[OwnContainer]) -> None:
        """These are all that it has."""
        kept = {one.instance.id for one in told}
        gone = [ident for ident in self._by_host.get(host, {}) if ident not in kept]
        self.take(host, told, gone)

    def take(self, host: HostId, told: Iterable[OwnContainer], gone: Iterable[InstanceId] = ()) -> None:
        """These are new or other; those are no more. Beyond `MOST` of one host no more are known, and none by
        an id that another host told first: commands by that id are for that one."""
        own, self._instances = self._by_host.setdefault(host, {}), None
        for one in told:
            if self._holders.get(one.instance.id, host) != host:
                continue
            if one.instance.id not in own and len(own) >= MOST:
                continue
            self._holders[one.instance.id] = host
            own[one.instance.id] = _its(host, one)
            self.waits.ring(one.instance.id)
        for ident in gone:
            if (last := own.pop(ident, None)) is not None:
                del self._holders[ident]
                self.waits.gone(replace(last.status, phase=Phase.REMOVED))
        if not own:
            del self._by_host[host]

    def forget(self, host: HostId) -> None:
        """It is no member any more: what it has is its own affair."""
        self.take(host, (), tuple(self._by_host.get(host, ())))


def _its(host: HostId, one: OwnContainer) -> OwnContainer:
    """Whatever else it says, it is of this host and of no service."""
    status = one.status
    words = {"message": status.message[:MOST_WORDS], "health_message": status.health_message[:MOST_WORDS]}
    instance = replace(one.instance, host=host, service=None, service_name="", slot=0)
    return OwnContainer(instance=instance, status=replace(status, **words))
