"""Who is on this host's networks, on all hosts, as the controller last said.

It is in the journal, since names and load balancing go on when neither controller nor agent lives. Invariant:
rows are written as the difference to what was known before, a whole directory included.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.journal import Journal, Write
from model import directory
from model.codec import encode_wire
from model.directory import Directory, DirectoryDelta, Member
from model.ids import InstanceId, NetworkId

_KIND = "member"


class Membership:
    """`changed` is called after each change, with what it was."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.directory = Directory()
        self.changed: Callable[[DirectoryDelta], None] = lambda _: None

    def read(self) -> None:
        """What the last agent of this host knew. Raises Damaged."""
        networks: dict[NetworkId, dict[InstanceId, Member]] = {}
        for key, member in self._journal.read(_KIND, Member).items():
            network, _, instance = key.partition("/")
            networks.setdefault(NetworkId(network), {})[InstanceId(instance)] = member
        self.directory = Directory(networks=networks)

    def take(self, delta: DirectoryDelta, *, whole: bool) -> None:
        """Replace all (`whole`), or change some. A crash may lose it: each session begins with the whole."""
        before = self.directory
        if whole:
            real = directory.diff(before, directory.apply(delta, Directory()))
        else:
            real = directory.narrowed(delta, before)
        if real.empty:
            return
        self.directory = directory.apply(real, before)
        writes: list[Write] = [
            (_KIND, f"{network}/{instance}", encode_wire(member))
            for network, members in real.put.items()
            for instance, member in members.items()
        ]
        writes += [
            (_KIND, f"{network}/{instance}", None) for network, left in real.gone.items() for instance in left
        ]
        self._journal.write(writes, durable=False)
        self.changed(real)
