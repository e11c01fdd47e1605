"""Results of builds from other hosts: what a peer says of a step, checked, and how its layers are fetched.
Pure.

Invariant: of layers that come so, no registry is asked; a record is only as good as its host, its layers are
what their digests say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from image.digest import check
from image.manifest import MAX_BLOB, Configuration, Descriptor
from image.reference import parse
from image.registry.source import Remote
from model.blobs import BlobPeers
from model.errors import Damaged
from model.ids import is_id
from model.image import ImageConfig
from model.sharedcache import MAX_LAYERS, SharedRecord
from model.spec import Struct
from model.status import Platform

MAX_NAME = 200
MAX_TIME = 253402300799.0


class Records(Protocol):
    """The build cache of this host, as others may have it."""

    def keys(self) -> Iterable[str]:
        """Of all steps whose layers are here whole."""
        ...

    def get(self, key: str) -> SharedRecord | None: ...


class NoRecords:
    def keys(self) -> Iterable[str]:
        return ()

    def get(self, key: str) -> SharedRecord | None:
        del key
        return None


class Offer(Struct):
    """Of a step: its record, the hosts that have it, and a ticket to get its layers there."""

    record: SharedRecord
    peers: BlobPeers


class FromPeers(Struct):
    """How a step's layers are reached (`Remote.access`): from hosts that offer them, from nowhere else."""

    offer: BlobPeers


def checked(record: SharedRecord, key: str) -> SharedRecord:
    """Raises Damaged for what a record can't be."""
    if record.key != key:
        raise Damaged("it gives the record of another step")
    if not 0 < len(record.layers) <= MAX_LAYERS:
        raise Damaged(f"the step's record has {len(record.layers)} layers")
    for layer in record.layers:
        check(layer.diff), check(layer.blob)
        if not 0 <= layer.size <= MAX_BLOB:
            raise Damaged(f"a layer of {layer.size} bytes can't be")
    if not is_id(record.ident):  # never the name of an image's files, over which others build
        raise Damaged("the step's record names no files of a step")
    if len(record.kind) > MAX_NAME or len(record.host) > MAX_NAME:
        raise Damaged("the step's record has a name that can't be")
    if not 0 <= record.created <= MAX_TIME or not 0 <= record.seconds <= MAX_TIME or record.size < 0:
        raise Damaged("the step's record has a time that can't be")
    return record


def remote_of(offer: Offer) -> Remote:
    """What a pull of the layers takes."""
    record = offer.record
    return Remote(
        reference=parse(f"build-cache@{record.key}"),
        config=b"",
        parsed=Configuration(
            platform=Platform(), diff_ids=tuple(layer.diff for layer in record.layers), config=ImageConfig()
        ),
        layers=tuple(Descriptor(digest=layer.blob, size=layer.size) for layer in record.layers),
        pinned="",
        access=FromPeers(offer=offer.peers),
    )
