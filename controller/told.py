"""What one host was told of the directory, and how much of it its kernel follows by its own word. No IO.

Invariant: `avoids` is false of a member as long as the host may send new connections to it because of what it
was told, whether that has arrived or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from model import directory
from model.directory import Directory, Members
from model.ids import InstanceId, NetworkId
from model.wire import Membership


class Told:
    def __init__(self, *, answering: bool = True) -> None:
        """`answering`: whether the host ever says what it follows; of one that does not nothing is kept."""
        self._answering = answering
        self._last: Directory | None = None
        self._followed: Directory | None = None
        self._on_their_way: dict[int, Directory] = {}
        self._serial = 0

    def news(self, now: Directory) -> Membership | None:
        """What to send to make it `now`; the first time all of it, even if nobody is there."""
        before, self._last = self._last, now
        delta = directory.diff(before or Directory(), now)
        if before is not None and delta.empty:
            return None
        self._serial += 1
        if self._answering:
            self._on_their_way[self._serial] = now
        return Membership(delta=delta, whole=before is None, serial=self._serial)

    def followed(self, serial: int) -> None:
        """The host says that it follows this one, and with it all before."""
        if serial in self._on_their_way:
            self._followed = self._on_their_way[serial]
            self._on_their_way = {s: d for s, d in self._on_their_way.items() if s > serial}

    def avoids(self, instance: InstanceId, networks: Iterable[NetworkId]) -> bool:
        """Whether it surely sends no new connections to this member of a service, on these networks."""
        if self._followed is None:
            return False
        known = (self._followed, *self._on_their_way.values())
        return not any(_leads_to(d, instance, network) for network in networks for d in known)

    def knows(self, instance: InstanceId, addresses: Mapping[NetworkId, tuple[str, str]]) -> bool:
        """Whether its kernel goes by these addresses of the instance."""
        followed = self._followed.networks if self._followed is not None else {}
        return all(
            (member := followed.get(network, _NOBODY).get(instance)) is not None
            and (member.ipv4, member.ipv6) == both
            for network, both in addresses.items()
        )


_NOBODY: Members = {}


def _leads_to(known: Directory, instance: InstanceId, network: NetworkId) -> bool:
    members = known.networks.get(network)
    member = None if members is None else members.get(instance)
    return member is not None and member.ready
