"""Results of steps by their keys: what was built once is not built again.

A record names layers, which stay as long as it does, and what a COPY chose of files with known ids is noted
too, so that they need not be read again. Invariant: a record is handed out only if all its layers are here
or are being made by a build of this agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from image.build.base import Files
from model.buildcache import CacheKind
from model.spec import Struct


class Record(Struct):
    key: str
    files: Files
    """`Files.layers` are chain ids, the step's own last."""
    created: float = 0.0
    """Unix seconds of when the step was done."""
    used: float = 0.0
    source: str = ""
    """The instruction, for people."""
    kind: CacheKind = "run"
    size: int = 0
    """Bytes of the step's own layer."""
    seconds: float = 0.0
    """That the step took."""
    where: str = ""
    """The host that it was just taken from, for people; it is not kept."""


class CacheRemote(Protocol):
    """Caches elsewhere: of the fleet's hosts, registries, archives."""

    async def find(self, key: str) -> Record | None:
        """Where a step's result is elsewhere. Never raises for what can't be reached."""
        ...

    async def bring(self, record: Record) -> bool:
        """Its layers here; whether that was done."""
        ...

    def tell(self, record: Record) -> None:
        """That one was made here. Never waits."""
        ...


class NoRemote:
    async def find(self, key: str) -> Record | None:
        del key
        return None

    async def bring(self, record: Record) -> bool:
        del record
        return False

    def tell(self, record: Record) -> None:
        del record


class Cache(Protocol):
    async def find(self, key: str, *, elsewhere: bool = True) -> Record | None:
        """`elsewhere`: what is not here may be in other caches."""
        ...

    def put(self, record: Record) -> None:
        """Its layers may still be in the making; it is kept once they are made."""
        ...

    def chosen(self, guess: str) -> str | None:
        """The content's key that was noted."""
        ...

    def note(self, guess: str, content: str) -> None: ...


class MemoryCache:
    """Forgets all with the process: for tests, and hosts without room for another."""

    def __init__(self, remote: CacheRemote | None = None) -> None:
        self._records: dict[str, Record] = {}
        self._notes: dict[str, str] = {}
        self._remote = remote or NoRemote()

    @property
    def records(self) -> Mapping[str, Record]:
        return self._records

    async def find(self, key: str, *, elsewhere: bool = True) -> Record | None:
        found = self._records.get(key)
        if found is None and elsewhere and (found := await self._remote.find(key)) is not None:
            if not await self._remote.bring(found):
                return None
            self._records[key] = found
        return found

    def put(self, record: Record) -> None:
        self._records[record.key] = record
        self._remote.tell(record)

    def chosen(self, guess: str) -> str | None:
        return self._notes.get(guess)

    def note(self, guess: str, content: str) -> None:
        self._notes[guess] = content
