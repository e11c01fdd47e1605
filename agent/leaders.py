"""Which leader this host obeys: none whose state is older than one that it has heard.

A controller that was taken for dead, or whose state was put back by hand, would have this host remove what it
does not know of. Invariant: the highest epoch that was heard is in the journal before anything is done by it.
"""

from __future__ import annotations

from agent.journal import Journal


class Leaders:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.newest = journal.read("meta", int).get("leader", 0)

    async def older(self, epoch: int) -> bool:
        """Whether that leader must not be obeyed. 0: it is of a controller that does not say."""
        if 0 < epoch < self.newest:
            return True
        if epoch > self.newest:
            await self._journal.put("meta", "leader", epoch)
            self.newest = epoch
        return False
