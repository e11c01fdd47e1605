"""The ports of services that this host has open, and those that it can't open, since somebody else has them.

Invariant: a port that is open stays open for as long as it is wanted, over restarts of the agent too: a
program that takes it later gets nothing by that. After a boot nothing is open, and whoever was sooner has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.context import Context
from agent.ingress import Port, opened
from agent.journal import Journal
from model.errors import Exhausted
from model.spec import Struct
from net.loadbalance import VirtualService
from net.publish import ANY4, ANY6

_KIND = "opened"


class Opened(Struct):
    """What is journalled, in one item."""

    boot_id: str
    ports: tuple[Port, ...] = ()


class OpenPorts:
    def __init__(self, context: Context, journal: Journal) -> None:
        self._context, self._journal = context, journal
        self._open: frozenset[Port] = frozenset()
        self.taken: frozenset[Port] = frozenset()
        """Those that this host can't open; to be looked at again now and then, for nobody tells when a
        program lets go of one."""

    def read(self) -> None:
        """What the last agent of this boot had open. Raises Damaged."""
        for found in self._journal.read(_KIND, Opened).values():
            if found.boot_id == self._context.boot_id:
                self._open = frozenset(found.ports)

    def without_taken(self, services: Mapping[str, VirtualService]) -> dict[str, VirtualService]:
        """The services with those ports that this host can open; they are its from now on."""
        before = self._open
        found, self._open, self.taken = opened(services, before, self._is_free)
        if self._open != before:
            now = Opened(boot_id=self._context.boot_id, ports=tuple(sorted(self._open)))
            self._journal.put(_KIND, "", now, durable=False)
        return found

    def _is_free(self, protocol: str, port: int) -> bool:
        """On all addresses of both families."""
        try:
            for any_ in (ANY4, ANY6):
                self._context.network.free_port(protocol, any_, within=(port, port))
        except Exhausted:
            return False
        return True
