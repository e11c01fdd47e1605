"""What becomes of this host's containers, told: to the controller, and to who waits here.

Invariant: a container of the host's own is told apart from the fleet's, which the controller has records of.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent import happenings
from agent.context import Context
from agent.record import Local, status_of
from agent.reporter import Reporter
from aio.waits import Waits
from model import lives
from model.own import OwnContainer
from model.status import InstanceStatus


class Telling:
    def __init__(self, context: Context, reporter: Reporter) -> None:
        self._context = context
        self._reporter = reporter
        self.waits = Waits()

    def now(self, record: Local) -> None:
        """It is in another state, or is to be."""
        own = self._context.own.get(record.instance)
        if own is None:
            self._reporter.status(status_of(record))
        else:
            self._reporter.own(OwnContainer(instance=own, status=status_of(record)))
        self.waits.ring(record.instance)

    def gone(self, record: Local) -> None:
        """Nothing of it is left."""
        own = self._context.own.get(record.instance)
        if own is None:
            self._reporter.forgotten(record.instance, status_of(record))
        else:
            self._reporter.event(happenings.of_container(self._context, record, own, "destroy"))
            self._reporter.own_gone(record.instance)
        self.waits.gone(status_of(record))

    def statuses(self) -> Sequence[InstanceStatus]:
        """Of what the fleet made."""
        own, records = self._context.own, self._context.records
        return [status_of(record) for ident, record in records.items() if ident not in own]

    def own(self) -> Sequence[OwnContainer]:
        """All of the host's own."""
        records = self._context.records
        found = ((wish, records.get(ident)) for ident, wish in self._context.own.items())
        return [
            OwnContainer(instance=wish, status=lives.present(wish, status_of(record) if record else None))
            for wish, record in found
        ]
