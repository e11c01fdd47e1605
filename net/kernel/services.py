"""The table of services in the kernel, and whether anybody else has been at nft since we were.

The generation of a namespace's rules grows by one with each transaction. Own transactions are counted; what
is more is somebody else's. So tens of thousands of elements are listed only when there may be a reason.
Blocking calls, all on one thread.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence, Set

from model.errors import CommandFailed
from net.kernel import chains, nfnetlink
from net.kernel.base import SeenServices
from net.loadbalance import SETS, ElementChange, Elements, Flow
from net.nftscript import TABLE as SHORTCUTS
from net.portelements import LENGTH
from net.servicechains import TABLE
from net.shortcuts import set_of

TRIES = 20
KNOWN = ("known4", "known6", "portknown4", "portknown6")


class ServiceLink:
    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._generation = 0
        self._others = True

    def open(self) -> None:
        self._socket = nfnetlink.connect()
        self._generation = nfnetlink.generation(self._socket)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def before(self) -> None:
        """Ahead of an own transaction."""
        self._others = self._others or nfnetlink.generation(self._link) != self._generation

    def after(self) -> None:
        """Once it succeeded."""
        now = nfnetlink.generation(self._link)
        self._others = self._others or now != self._generation + 1
        self._generation = now

    def changed_by_others(self) -> bool:
        now = nfnetlink.generation(self._link)
        found = self._others or now != self._generation
        self._others, self._generation = False, now
        return found

    def observe(self) -> SeenServices:
        self.changed_by_others()
        seen = self._chains()
        elements: Elements = {name: self._list(name) for name in SETS}
        return SeenServices(chains=seen, elements=elements)

    def change(self, change: ElementChange) -> None:
        self.before()
        try:
            nfnetlink.change_elements(self._link, TABLE, change)
        except OSError as error:
            raise CommandFailed(f"the kernel refused a change of services: {error.strerror}") from error
        self.after()

    def track(self, come: Set[bytes], gone: Set[bytes]) -> None:
        """In the table of shortcuts, where it stands. Elements that come twice are one; a transaction that
        wants to take out one that is not there fails, and leaves them all to the next comparison."""
        if not (come or gone) or not nfnetlink.has_table(self._link, nfnetlink.NFPROTO_NETDEV, SHORTCUTS):
            return
        change = ElementChange(
            gone={name: tuple(found) for name, found in _sorted(gone).items()},
            new={name: dict.fromkeys(found, b"") for name, found in _sorted(come).items()},
        )
        self.before()
        try:
            nfnetlink.change_elements(self._link, SHORTCUTS, change, nfnetlink.NFPROTO_NETDEV)
        except FileNotFoundError:
            if come:
                raise
            return
        self.after()

    def forget_clients(self, flows: Sequence[Flow]) -> None:
        """Those that sticky services remember for these flows."""
        sticky = {(flow.vip, flow.member) for flow in flows if flow.sticky}
        for name in KNOWN if sticky else ():
            self._forget_clients(name, sticky)

    def _forget_clients(self, name: str, sticky: set[tuple[bytes, bytes]]) -> None:
        """An entry may run out between list and removal; then the list is taken again."""
        for _ in range(TRIES):
            found = self._list(name)
            gone = tuple(k for k, member in found.items() if _meant(k, member, sticky))
            if not gone:
                return
            try:
                self.change(ElementChange(gone={name: gone}))
            except CommandFailed:
                continue
            return

    def _chains(self) -> dict[str, tuple[str, ...]]:
        """Those that work as they should: none in a table that is switched off, none whose policy somebody
        made another."""
        if nfnetlink.is_dormant(self._link, nfnetlink.NFPROTO_INET, TABLE):
            return {}
        found = nfnetlink.list_comments(self._link, TABLE)
        shut = chains.dropping_chains(self._link, TABLE)
        return {name: seen for name, seen in found.items() if name not in shut}

    def _list(self, name: str) -> dict[bytes, bytes]:
        try:
            return nfnetlink.list_elements(self._link, TABLE, name)
        except FileNotFoundError:
            return {}

    @property
    def _link(self) -> socket.socket:
        if self._socket is None:
            raise OSError(errno.EBADF, "not started")
        return self._socket


def _sorted(members: Set[bytes]) -> Mapping[str, list[bytes]]:
    """By set."""
    found: dict[str, list[bytes]] = {}
    for member in members:
        found.setdefault(set_of(member), []).append(member)
    return found


def _meant(key: bytes, member: bytes, sticky: set[tuple[bytes, bytes]]) -> bool:
    """A port's key comes first in what it is known by. The key of an address's IPv6 entry has only hashes;
    clients of the member's other services are forgotten too."""
    if (key[:LENGTH], member) in sticky:
        return True
    if len(member) == 16:
        return any(left == member and len(vip) == len(member) for vip, left in sticky)
    return (key[:4], member) in sticky
