"""The build cache of a host, on its disk.

    <folder>/journal      records and notes, each change behind the others

Layers that records name stay (`chains`); a record whose layers are gone is none. A record that was just
made names a layer that has no digest yet: it is used at once, and written once it is a layer. Invariant:
half-made steps leave nothing that a later build would find.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from aio.supervisor import Supervisor, in_thread
from image.build import keeping
from image.build.base import Files, Snapshots
from image.build.cache import CacheRemote, NoRemote, Record
from image.build.journal import Change, Gone, Journal, Noted, Put, Used
from image.collection import Disk, needed
from image.layers import Layer
from model.buildcache import CacheEntry, CacheFreed, CacheKeeping, CachePrune
from model.errors import FlotaError
from model.sharedcache import MAX_SOURCE

log = logging.getLogger("flota.build")
MAX_NOTES = 20_000
TOLD = 3600.0
"""Seconds after which a further use of a record is written."""
TRIM = 60.0
"""Seconds between two looks at the disk, at least: what goes is not gone at once."""
SLACK = 1000
"""Changes that a journal may have beyond twice what is in it."""


class BuildCache:
    """`layer` is a layer of this host by its chain id; `imaged` tells which layers images or containers
    have; `collect` takes layers away that nobody needs, and says how many bytes; `disk` is where they lie."""

    def __init__(
        self,
        folder: Path,
        *,
        layer: Callable[[str], Layer | None],
        imaged: Callable[[], Collection[str]],
        collect: Callable[[], int],
        snapshots: Snapshots,
        supervisor: Supervisor,
        now: Callable[[], float],
        disk: Callable[[], Disk] | None = None,
        remote: CacheRemote | None = None,
    ) -> None:
        self._folder = folder
        self._journal = Journal(folder / "journal")
        self._layer = layer
        self._imaged = imaged
        self._collect = collect
        self._snapshots = snapshots
        self._supervisor = supervisor
        self._now = now
        self._disk = disk
        self._limits = CacheKeeping()
        self.remote: CacheRemote = remote or NoRemote()
        self._records: dict[str, Record] = {}
        self._notes: OrderedDict[str, str] = OrderedDict()
        self._used_told: dict[str, float] = {}
        self._chains: Counter[str] = Counter()
        self._young: dict[str, ExitStack] = {}
        """By key: what holds the layers of a record that is not yet written, as they are in the making."""
        self._numbers = itertools.count(1)
        self._waiting: list[Change] = []
        self._filled = asyncio.Event()
        self._writing = asyncio.Lock()
        self._trimmed = 0.0

    # -- start --------------------------------------------------------------------------------------
    def open(self) -> None:
        """Read what there is. Blocking."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for change in self._journal.read():
            match change:
                case Put(record=record):
                    self._records[record.key] = record
                case Gone(keys=keys):
                    for key in keys:
                        self._records.pop(key, None)
                case Used(key=key, at=at):
                    if key in self._records:
                        self._records[key] = replace(self._records[key], used=at)
                case Noted(guess=guess, content=content):
                    self._note(guess, content)
        lost = [key for key, record in self._records.items() if not self._is_here(record)]
        for key in lost:
            del self._records[key]
        for record in self._records.values():
            self._chains.update(record.files.layers)
        if lost or self._journal.length > 2 * (len(self._records) + len(self._notes)) + SLACK:
            self._journal.rewrite(self._all())

    def start(self) -> None:
        self._supervisor.start("build cache", self._write, restart=True)

    # -- the seam -----------------------------------------------------------------------------------
    async def find(self, key: str, *, elsewhere: bool = True) -> Record | None:
        record = self._records.get(key)
        if record is not None and not self._is_here(record):
            self._drop((key,))
            record = None
        if record is None:
            return await self._elsewhere(key) if elsewhere else None
        self._use(record)
        return record

    def put(self, record: Record) -> None:
        held = ExitStack()
        held.enter_context(self._snapshots.hold(record.files))
        self._drop((record.key,))
        record = replace(record, source=record.source[:MAX_SOURCE])
        self._records[record.key] = record
        self._young[record.key] = held
        self._supervisor.start(f"record {next(self._numbers)}", lambda: self._settle(record, held))

    def chosen(self, guess: str) -> str | None:
        return self._notes.get(guess)

    def note(self, guess: str, content: str) -> None:
        self._note(guess, content)
        self._tell(Noted(guess=guess, content=content))

    # -- what is kept -------------------------------------------------------------------------------
    @property
    def records(self) -> Mapping[str, Record]:
        """By key; also those whose layers are still being made."""
        return self._records

    def chains(self) -> Collection[str]:
        """Of all layers that records need."""
        return self._chains.keys()

    def entries(self) -> list[CacheEntry]:
        imaged = self._imaged()
        return [self._entry(record, imaged) for record in self._records.values()]

    async def prune(self, wish: CachePrune) -> CacheFreed:
        return self._freed(keeping.pruned(self.entries(), wish, self._now()))

    def remove(self, idents: Sequence[str]) -> CacheFreed:
        """These, as far as they are there."""
        return self._freed([ident for ident in idents if f"sha256:{ident}" in self._records])

    async def free(self, need: int) -> CacheFreed:
        """About so many bytes, of what was used longest ago."""
        return self._freed(keeping.enough(self.entries(), need))

    def keep(self, limits: CacheKeeping) -> CacheFreed:
        """From now on these; to be called by and by, as results grow old and the disk fills."""
        now = self._now()
        if limits == self._limits and 0 <= now - self._trimmed < TRIM:
            return CacheFreed()
        self._limits = limits
        lacking = 0
        if limits.min_free and self._disk is not None:
            lacking = needed(self._disk(), 100 - limits.min_free, 100 - limits.min_free)
        return self.trim(lacking)

    def trim(self, lacking: int = 0) -> CacheFreed:
        """To the limits."""
        self._trimmed = self._now()
        return self._freed(keeping.outgrown(self.entries(), self._limits, self._now(), lacking))

    @property
    def settling(self) -> bool:
        """Whether records are yet to be written, as their layers are in the making."""
        return bool(self._young)

    async def written(self) -> None:
        """Until what was told is in the file, as far as it can be written."""
        await self._flush()

    # -- parts --------------------------------------------------------------------------------------
    async def _elsewhere(self, key: str) -> Record | None:
        found = await self.remote.find(key)
        if found is None or not await self.remote.bring(found) or not self._is_here(found):
            return None
        known = self._records.get(key)
        if known is not None:
            return known
        record = replace(found, used=self._now())
        self._add(replace(record, where=""))
        return record

    async def _settle(self, record: Record, held: ExitStack) -> None:
        try:
            settled = await self._snapshots.settled(record.files)
        except FlotaError as error:
            log.warning("a step's layer could not be made, and is not kept: %s", error)
            if self._is_still(record, held):
                del self._records[record.key]
        else:
            chains = tuple(chain for chain, _ in settled)
            layer = self._layer(chains[-1]) if chains else None
            if self._is_still(record, held):
                whole = replace(
                    self._records[record.key],
                    files=Files(id=record.files.id, layers=chains),
                    size=layer.on_disk if layer is not None else 0,
                )
                self._add(whole)
                self.remote.tell(whole)
        finally:
            if self._is_still(record, held):
                del self._young[record.key]
            held.close()
        self.trim()

    def _add(self, record: Record) -> None:
        self._records[record.key] = record
        self._chains.update(record.files.layers)
        self._used_told[record.key] = record.used
        self._tell(Put(record=record))

    def _use(self, record: Record) -> None:
        now = self._now()
        self._records[record.key] = replace(record, used=now)
        if now - self._used_told.get(record.key, record.used) >= TOLD and not self._is_young(record):
            self._used_told[record.key] = now
            self._tell(Used(key=record.key, at=now))

    def _is_still(self, record: Record, held: ExitStack) -> bool:
        """Whether it has not been taken away or made anew meanwhile."""
        return self._young.get(record.key) is held

    def _is_young(self, record: Record) -> bool:
        """Not yet written."""
        return record.key in self._young

    def _is_here(self, record: Record) -> bool:
        if self._is_young(record):
            return True
        return all(self._layer(chain) is not None for chain in record.files.layers)

    def _entry(self, record: Record, imaged: Collection[str]) -> CacheEntry:
        young = self._is_young(record)
        top = record.files.layers[-1] if record.files.layers else ""
        return CacheEntry(
            id=record.key.removeprefix("sha256:"),
            kind=record.kind,
            source=record.source,
            size=record.size,
            created=record.created,
            used=record.used,
            shared=top in imaged,
            in_use=young,
        )

    def _freed(self, idents: Sequence[str]) -> CacheFreed:
        if not idents:
            return CacheFreed()
        self._drop([f"sha256:{ident}" for ident in idents])
        return CacheFreed(entries=tuple(idents), freed=self._collect())

    def _drop(self, keys: Sequence[str]) -> None:
        gone = [key for key in keys if key in self._records]
        for key in gone:
            record = self._records.pop(key)
            self._used_told.pop(key, None)
            if self._young.pop(key, None) is None:
                self._chains.subtract(record.files.layers)
                self._chains += Counter()
        if gone:
            self._tell(Gone(keys=tuple(gone)))

    def _note(self, guess: str, content: str) -> None:
        self._notes[guess] = content
        self._notes.move_to_end(guess)
        while len(self._notes) > MAX_NOTES:
            self._notes.popitem(last=False)

    def _all(self) -> list[Change]:
        whole = [Put(record=record) for record in self._records.values() if not self._is_young(record)]
        return [*whole, *(Noted(guess=guess, content=content) for guess, content in self._notes.items())]

    def _tell(self, change: Change) -> None:
        self._waiting.append(change)
        self._filled.set()

    async def _write(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            await self._append()

    async def _append(self) -> None:
        changes, self._waiting = self._waiting, []
        try:
            await in_thread(self._journal.append, changes)
            if self._journal.length > 2 * (len(self._records) + len(self._notes)) + SLACK:
                await in_thread(self._journal.rewrite, self._all())
        except OSError as error:  # the disk is full, most likely: what is not written is built again
            log.warning("the build cache can't be written: %s", error)
