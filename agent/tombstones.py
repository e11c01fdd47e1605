"""Instances that were removed here while the View still named them: none of them is made again.

Invariant: a tombstone stays until no View names its instance any more, and is told again of until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable

from agent.journal import Journal
from agent.record import Local
from model.ids import InstanceId

KIND = "local"


class Tombstones:
    """Records of the removed are of the same kind as those of the living."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._records: dict[InstanceId, Local] = {}

    def __contains__(self, ident: InstanceId) -> bool:
        return ident in self._records

    def __getitem__(self, ident: InstanceId) -> Local:
        return self._records[ident]

    def __len__(self) -> int:
        return len(self._records)

    def keep(self, record: Local) -> asyncio.Future[None]:
        self._records[record.instance] = record
        return self._journal.put(KIND, record.instance, record)

    def found(self, record: Local) -> None:
        """In the journal, at the agent's start."""
        self._records[record.instance] = record

    def tidy(self, named: Container[InstanceId]) -> Iterable[Local]:
        """Forget those that the View does not name any more; the others."""
        for ident in [ident for ident in self._records if ident not in named]:
            del self._records[ident]
            self._journal.delete(KIND, ident)
        return tuple(self._records.values())
