"""The images of a host as records in one file, written whole and atomically.

A few hundred records at most, changed rarely and read always from memory: one JSON file (written aside,
fsync, rename, fsync of the folder) is simpler than a database and can be read and mended by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from aio.durable import write_file
from image.digest import is_digest
from image.platforms import fits, host_platform
from image.reference import parse
from model.codec import UNREADABLE
from model.errors import Ambiguous, Damaged, InvalidInput, NotFound
from model.image import ImageRecord
from model.spec import Struct
from model.status import Platform


class Entry(Struct):
    record: ImageRecord
    chains: tuple[str, ...]
    """Chain ids of its layers, bottom first."""
    manifest: str = ""
    """Digest of the manifest that it came with, whose bytes are kept beside its configuration."""
    arrived: float = 0.0
    """Unix seconds of when it came here last; 0: unknown, on a host of an older release."""
    index: str = ""
    """The index that it came with when all of that one's platforms were pulled, as it came. Images of one
    index share their names."""
    attached: tuple[str, ...] = ()
    """Digests of what the index names beside images and of the parts of these, of which bytes are kept:
    attestations."""

    @property
    def documents(self) -> tuple[str, ...]:
        """Digests of those that are kept for it."""
        own = (self.record.id, self.manifest) if self.manifest else (self.record.id,)
        return (*own, *self.attached)

    @property
    def needed(self) -> tuple[str, ...]:
        """Digests of all that it is made of, as a lease names them."""
        return (*self.documents, *self.chains)


class _File(Struct):
    version: int = 1
    images: tuple[Entry, ...] = ()


class Catalog:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}

    def open(self) -> None:
        """Raises Damaged, telling what to do, when the file can't be read."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            file = msgspec.json.decode(data, type=_File)
        except UNREADABLE as error:
            raise Damaged(
                f"{self._path} can't be read: {error}",
                hint="Move it away; images must then be pulled or loaded again",
            ) from error
        self._set({entry.record.id: entry for entry in file.images})

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    def put(self, *new: Entry) -> None:
        """Add or replace images, all or none; a name that one takes leaves the image that had it."""
        entries = dict(self._entries)
        for entry in new:
            taken = set(entry.record.names)
            entries = {
                ident: other if other.index and other.index == entry.index else untagged(other, taken)
                for ident, other in entries.items()
            }
            entries[entry.record.id] = entry
        self._commit(entries)

    def drop(self, *idents: str) -> None:
        self._commit({key: entry for key, entry in self._entries.items() if key not in idents})

    def find(self, ref: str) -> Entry:
        """By id, name, repository digest, or unique id prefix, in this order."""
        if (ident := f"sha256:{ref.removeprefix('sha256:')}") in self._entries:
            return self._entries[ident]
        try:
            parsed = parse(ref)
        except InvalidInput:
            return self._by_prefix(ref, None)
        if parsed.digest:
            wanted = f"{parsed.repository}@{parsed.digest}"
            having = [entry for entry in self._entries.values() if wanted in entry.record.digests]
            for entry in having:
                return self.of_platform(entry, host_platform()) or entry
        elif parsed.name in self._names:
            return self._entries[self._names[parsed.name]]
        return self._by_prefix(ref, parsed.familiar)

    def family(self, entry: Entry) -> Sequence[Entry]:
        """The image, and those of the same index that share a name or a digest with it."""
        shared = {*entry.record.names, *entry.record.digests}
        others = [
            other
            for other in self._entries.values()
            if entry.index and other.index == entry.index and other.record.id != entry.record.id
            if not shared.isdisjoint((*other.record.names, *other.record.digests))
        ]
        return [entry, *others]

    def of_platform(self, entry: Entry, wanted: Platform) -> Entry | None:
        """Of the image's family the one that is made for a platform, the very variant before any."""
        fitting = [other for other in self.family(entry) if fits(other.record.platform, wanted)]
        exact = [other for other in fitting if other.record.platform.variant == wanted.variant]
        return next(iter(exact or fitting), None)

    def _by_prefix(self, ref: str, name: str | None) -> Entry:
        digits = ref.removeprefix("sha256:")
        found = [e for i, e in self._entries.items() if i.startswith(f"sha256:{digits}")] if digits else []
        if digits.strip("0123456789abcdef") or not found:
            if name is None and not is_digest(ref):
                parse(ref)
            raise NotFound(f"no such image: {name or ref[:128]}")
        if len(found) > 1:
            raise Ambiguous(f"{ref!r} fits {len(found)} images", hint="Give more digits")
        return found[0]

    def _commit(self, entries: dict[str, Entry]) -> None:
        data = msgspec.json.format(msgspec.json.encode(_File(images=tuple(entries.values()))), indent=1)
        write_file(self._path, data)
        self._set(entries)

    def _set(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        ours = host_platform()
        first = sorted(entries.values(), key=lambda entry: not fits(entry.record.platform, ours))
        self._names = {}
        for entry in first:  # of one index several have the name: it means the one that runs here
            for name in entry.record.names:
                self._names.setdefault(name, entry.record.id)


def tagged(entry: Entry, name: str) -> Entry:
    names = tuple(dict.fromkeys((*entry.record.names, name)))
    return msgspec.structs.replace(entry, record=msgspec.structs.replace(entry.record, names=names))


def untagged(entry: Entry, names: set[str]) -> Entry:
    if names.isdisjoint(entry.record.names):
        return entry
    kept = tuple(name for name in entry.record.names if name not in names)
    return msgspec.structs.replace(entry, record=msgspec.structs.replace(entry.record, names=kept))
