"""Who waits for something to become of a container.

Invariant: every state that a container is in is looked at by all who wait for it then, also one that the next
follows at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from model.api import WaitResult
from model.ids import InstanceId
from model.status import InstanceStatus

REMEMBERED = 1024
"""Last statuses of removed containers that are kept, for those who ask how they ended."""
Look = Callable[[], WaitResult | None]


class Waits:
    def __init__(self) -> None:
        self._looks: defaultdict[InstanceId, list[Callable[[], None]]] = defaultdict(list)
        self._gone: OrderedDict[InstanceId, InstanceStatus] = OrderedDict()

    def last(self, ident: InstanceId) -> InstanceStatus | None:
        """Of one that was removed a while ago."""
        return self._gone.get(ident)

    def gone(self, status: InstanceStatus) -> None:
        """Nothing of it is left."""
        self._gone[status.instance] = status
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        self.ring(status.instance)

    def ring(self, ident: InstanceId) -> None:
        """It may be in another state, or gone."""
        for look in tuple(self._looks.get(ident, ())):
            look()

    async def until(self, ident: InstanceId, look: Look) -> WaitResult:
        """The first answer that `look` gives, asked now and at each ring."""
        found: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()

        def again() -> None:
            if not found.done() and (answer := look()) is not None:
                found.set_result(answer)

        again()
        self._looks[ident].append(again)
        try:
            return await found
        finally:
            self._looks[ident].remove(again)
            if not self._looks[ident]:
                del self._looks[ident]
