"""The build cache that the hosts of a fleet share: a step that one of them has done is done for all.

`FleetCache` finds results at other hosts, `GivenRecords` is what others find here. Invariants: hosts that
can't be reached make a build slower, never fail it; only what is whole here is told to others.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from heapq import nlargest
from typing import Protocol, get_args

from msgspec.structs import replace

from image.build.base import Files
from image.build.cache import Record
from image.digest import chain_ids
from image.layers import Layer
from image.peers.records import Offer, remote_of
from image.registry.source import Remote
from model.blobs import MAX_BLOBS
from model.buildcache import CacheKind
from model.errors import FlotaError
from model.sharedcache import MAX_SOURCE, SharedLayer, SharedRecord

log = logging.getLogger("flota.build")
MOST_TOLD = MAX_BLOBS // 2
"""Steps that others hear of, those used last: blobs of images are told by the same way."""
MAX_OFFERS = 1000
"""That are remembered between `find` and `bring`."""


class Finder(Protocol):
    """`image.peers.source.PeerSource` is one."""

    async def record(self, key: str) -> Offer | None: ...


class FleetCache:
    """A `CacheRemote`. `pull` brings a remote's layers here; `ring` has it told soon what is here."""

    def __init__(
        self, finder: Finder, pull: Callable[[Remote], Awaitable[None]], ring: Callable[[], None]
    ) -> None:
        self._finder = finder
        self._pull = pull
        self._ring = ring
        self._offers: OrderedDict[str, Offer] = OrderedDict()

    async def find(self, key: str) -> Record | None:
        offer = await self._finder.record(key)
        if offer is None:
            return None
        self._offers[key] = offer
        while len(self._offers) > MAX_OFFERS:
            self._offers.popitem(last=False)
        return taken(offer.record)

    async def bring(self, record: Record) -> bool:
        offer = self._offers.pop(record.key, None)
        if offer is None:
            return False
        try:
            await self._pull(remote_of(offer))
        except FlotaError as error:
            log.info("step %s is done here, other hosts have it: %s", record.key[7:19], error.message)
            return False
        self._ring()
        return True

    def tell(self, record: Record) -> None:
        del record
        self._ring()


class GivenRecords:
    """`image.peers.records.Records` of this host's cache."""

    def __init__(
        self,
        records: Callable[[], Mapping[str, Record]],
        layer: Callable[[str], Layer | None],
        host: Callable[[], str] = str,
    ) -> None:
        self._records = records
        self._layer = layer
        self._host = host

    def keys(self) -> Iterable[str]:
        """The layers below a step's own are there as long as that one is."""
        records = self._records()
        ready = [key for key, one in records.items() if one.files.layers and self._has(one.files.layers[-1])]
        if len(ready) > MOST_TOLD:
            ready = nlargest(MOST_TOLD, ready, key=lambda key: records[key].used)
        return ready

    def get(self, key: str) -> SharedRecord | None:
        record = self._records().get(key)
        if record is None or not self._whole(record):
            return None
        return replace(given(record, self._layer), host=self._host())

    def _whole(self, record: Record) -> bool:
        return bool(record.files.layers) and all(self._has(chain) for chain in record.files.layers)

    def _has(self, chain: str) -> bool:
        layer = self._layer(chain)
        return layer is not None and bool(layer.packed.digest)


def given(record: Record, layer: Callable[[str], Layer | None]) -> SharedRecord:
    """All layers are here, with their blobs."""
    return SharedRecord(
        key=record.key,
        ident=record.files.id,
        layers=tuple(_layers(record, layer)),
        created=record.created,
        source=record.source[:MAX_SOURCE],
        kind=record.kind,
        size=record.size,
        seconds=record.seconds,
    )


def _layers(record: Record, layer: Callable[[str], Layer | None]) -> Iterator[SharedLayer]:
    for chain in record.files.layers:
        found = layer(chain)
        assert found is not None
        yield SharedLayer(diff=found.diff, blob=found.packed.digest, size=found.packed.size)


def taken(shared: SharedRecord) -> Record:
    """Of a record that was checked."""
    return Record(
        key=shared.key,
        files=Files(id=shared.ident, layers=chain_ids(tuple(layer.diff for layer in shared.layers))),
        created=shared.created,
        source=shared.source,
        kind=next((kind for kind in get_args(CacheKind) if kind == shared.kind), "run"),
        size=shared.size,
        seconds=shared.seconds,
        where=shared.host,
    )
