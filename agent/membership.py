"""Who is on this host's networks, on all hosts, as the controller last said.

It is in the journal, since names and load balancing go on when neither controller nor agent lives. Invariant:
rows are written as the difference to what was known before, a whole directory included; what is no address is
neither taken nor read, for all that this host does for its networks would end by it.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.journal import Journal, Write
from aio.mailbox import Bell
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
        self.heard = (0, 0)
        """(session, serial) of what was taken last."""
        self._followed = 0
        self.in_session = False
        """Whether the controller may answer now."""
        self._bell = Bell()

    def begin(self) -> None:
        """A new session: what is said from now on has serials of its own."""
        self.heard, self._followed, self.in_session = (self.heard[0] + 1, 0), 0, True

    def end(self) -> None:
        """No session: nobody says anything."""
        self.in_session = False

    def follow(self, heard: tuple[int, int]) -> None:
        """New connections go by what had been `heard`."""
        if heard[0] == self.heard[0] and heard[1] > self._followed:
            self._followed = heard[1]
            self._bell.ring()

    async def followed(self) -> int:
        """The serial up to which new connections go by it, once that is another."""
        await self._bell.wait()
        return self._followed

    def read(self) -> None:
        """What the last agent of this host knew. Raises Damaged."""
        networks: dict[NetworkId, dict[InstanceId, Member]] = {}
        for key, member in self._journal.read(_KIND, Member).items():
            network, _, instance = key.partition("/")
            networks.setdefault(NetworkId(network), {})[InstanceId(instance)] = directory.legible_member(
                member
            )
        self.directory = Directory(networks=networks)

    def take(self, delta: DirectoryDelta, *, whole: bool, serial: int = 0) -> None:
        """Replace all (`whole`), or change some. A crash may lose it: each session begins with the whole."""
        delta = directory.legible(delta)
        before, self.heard = self.directory, (self.heard[0], serial)
        if whole:
            real = directory.diff(before, directory.apply(delta, Directory()))
        else:
            real = directory.narrowed(delta, before)
        if real.empty:
            self.changed(real)  # it is to be followed nevertheless
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
