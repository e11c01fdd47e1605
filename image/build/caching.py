"""Caches that one build is told to use: `--cache-from`, `--cache-to`.

`Remembering` stands around the host's cache: what is not there is looked for in the imports, and all that the
build found or made is remembered for exports. Invariants: an import that can't be had makes a build slower,
never fail it; of an export that fails nothing has a name anywhere; what an import says, and what a build made
once it had believed one, is found by builds that name the same imports, and by no others.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from aio.supervisor import in_thread
from image.build.base import Files, Snapshots
from image.build.cache import Cache, CacheRemote, Record
from image.build.cacheformat import (
    CONFIG,
    CacheDocument,
    decode,
    decode_inline,
    encode,
    encode_inline,
    manifest,
)
from image.build.shared import given, taken
from image.digest import chain_ids, of
from image.layers import LayerStore
from image.manifest import OCI_MANIFEST, Configuration, Descriptor
from image.packed import media_type_of
from image.peers.records import checked
from image.reference import Reference
from image.registry.source import Blob, Outgoing, Remote, Source
from model.errors import FlotaError, NotFound
from model.image import ImageConfig
from model.registries import Login
from model.sharedcache import SharedRecord
from model.status import Platform

log = logging.getLogger("flota.build")
NO_IMPORTS: Mapping[str, CacheRemote] = {}
Pull = Callable[[Remote], Awaitable[None]]


class Remembering:
    """A Cache. `used`: in the order in which the build came to them, keys of steps, each to the key that its
    record is kept under. `imports` by where they come from. `now` in unix seconds."""

    def __init__(
        self, cache: Cache, now: Callable[[], float], imports: Mapping[str, CacheRemote] = NO_IMPORTS
    ) -> None:
        self._cache = cache
        self._now = now
        self._imports = tuple(imports.values())
        self._scope = "\n".join(sorted(imports))
        self._believes = False
        """Files that this build stands on, and their ids, may be what an import said: from now on nothing
        that it does is known of anybody else's."""
        self.used: dict[str, str] = {}

    async def find(self, key: str, *, elsewhere: bool = True) -> Record | None:
        kept = self.used.get(key, key)
        found = await self._cache.find(kept, elsewhere=elsewhere)
        if found is None and self._imports and kept == key:
            kept = self._scoped(key)
            found = await self._cache.find(kept, elsewhere=elsewhere)
            if found is None and elsewhere:
                found = await self._imported(key, kept)
            self._believes |= found is not None
        if found is not None:
            self.used[key] = kept
        return found

    async def _imported(self, key: str, kept: str) -> Record | None:
        for one in self._imports:
            found = await one.find(key)
            if found is not None and await one.bring(found):
                found = replace(found, key=kept, used=self._now())
                self._cache.put(found)
                return found
        return None

    def put(self, record: Record) -> None:
        kept = self._scoped(record.key) if self._believes else record.key
        self.used[record.key] = kept
        self._cache.put(replace(record, key=kept))

    def chosen(self, guess: str) -> str | None:
        """What others noted is right of what has that id with them; what this build has may be something
        else, of which it then finds their result, which is true, or none."""
        found = self._cache.chosen(self._scoped(guess)) if self._believes else None
        return self._cache.chosen(guess) if found is None else found

    def note(self, guess: str, content: str) -> None:
        self._cache.note(self._scoped(guess) if self._believes else guess, content)

    def _scoped(self, key: str) -> str:
        """Another key, for those alone who name the same imports."""
        return of(f"{self._scope}\n{key}".encode())


class Imported:
    """A CacheRemote of a document that was read; `remote` is where its blobs are. `source`: where it comes
    from; whoever may write there is believed by those who name it."""

    def __init__(self, document: CacheDocument, remote: Remote, pull: Pull, source: str) -> None:
        self.source = source
        self._document = document
        self._remote = remote
        self._pull = pull

    def __len__(self) -> int:
        return len(self._document)

    async def find(self, key: str) -> Record | None:
        try:
            shared = self._document.get(key)
            return None if shared is None else taken(checked(shared, key))
        except FlotaError as error:
            log.info("step %s of an imported cache: %s", key[7:19], error.message)
            return None

    async def bring(self, record: Record) -> bool:
        shared = self._document.get(record.key)
        assert shared is not None
        remote = replace(
            self._remote,
            parsed=replace(NOTHING, diff_ids=tuple(layer.diff for layer in shared.layers)),
            layers=tuple(Descriptor(digest=layer.blob, size=layer.size) for layer in shared.layers),
        )
        try:
            await self._pull(remote)
        except FlotaError as error:
            log.info("step %s is done here, its import failed: %s", record.key[7:19], error.message)
            return False
        return True

    def tell(self, record: Record) -> None:
        del record


NOTHING = Configuration(platform=Platform(), diff_ids=(), config=ImageConfig())


async def of_registry(
    reference: Reference, source: Source, platform: Platform, login: Login, pull: Pull
) -> Imported:
    """What a cache, or an image with one in it, has at a registry. Raises as `Source`; NotFound for an image
    without."""
    remote = await source.artifact(reference, CONFIG, login)
    if remote is not None:
        return Imported(decode(remote.config), remote, pull, f"registry {reference.name}")
    remote = await source.resolve(reference, platform, login)
    if not remote.parsed.cache:
        raise NotFound(
            f"{reference.familiar} is an image without a build cache",
            hint="Build it with --cache-to type=inline",
        )
    document = decode_inline(remote.parsed.cache, remote.layers, remote.parsed.diff_ids)
    return Imported(document, remote, pull, f"registry {reference.name}")


class Exports:
    """Of what a build used: keys of steps, each to its key in `kept`, which is this host's cache. Records are
    given once their layers are whole."""

    def __init__(
        self,
        used: Mapping[str, str],
        kept: Mapping[str, Record],
        snapshots: Snapshots,
        layers: LayerStore,
    ) -> None:
        self._used = used
        self._kept = kept
        self._snapshots = snapshots
        self._layers = layers

    async def records(self, images: Iterable[Sequence[str]] | None = None) -> list[SharedRecord]:
        """All, or those whose layers are the first ones of one of these images (diff ids)."""
        found = []
        for key, kept in list(self._used.items()):
            record = self._kept.get(kept)
            if record is None:  # taken away meanwhile
                continue
            settled = await self._snapshots.settled(record.files)
            chains = tuple(chain for chain, _ in settled)
            if chains and all(self._layers.blob(chain) is not None for chain in chains):
                files = Files(id=record.files.id, layers=chains)
                found.append(given(replace(record, key=key, files=files), self._layers.get))
        if images is None:
            return found
        prefixes = {tuple(diffs[: n + 1]) for diffs in images for n in range(len(diffs))}
        return [one for one in found if tuple(layer.diff for layer in one.layers) in prefixes]

    async def inline(self, diffs: Sequence[str]) -> str:
        """For an image's configuration."""
        return encode_inline(await self.records(), diffs)

    async def outgoing(self, reference: Reference, records: Sequence[SharedRecord]) -> Outgoing:
        """The cache as it is pushed; whoever pushes holds its layers."""
        blobs = await in_thread(self._blobs, records)
        media = {blob.descriptor.digest: blob.descriptor.media_type for blob in blobs}
        config = encode(records, media)
        return Outgoing(
            reference=reference,
            manifest=manifest(config, [blob.descriptor for blob in blobs]),
            media_type=OCI_MANIFEST,
            config=config,
            layers=tuple(blobs),
        )

    def _blobs(self, records: Sequence[SharedRecord]) -> list[Blob]:
        found: dict[str, Blob] = {}
        for chain in chains_of(records):
            kept = self._layers.blob(chain)
            if kept is None:
                raise NotFound(f"layer {chain[7:19]} of the build cache is gone")
            packed, path = kept
            with open(path, "rb") as file:
                media = media_type_of(file.read(6))
            descriptor = Descriptor(digest=packed.digest, size=packed.size, media_type=media)
            found.setdefault(packed.digest, Blob(descriptor=descriptor, path=path))
        return list(found.values())


def chains_of(records: Iterable[SharedRecord]) -> tuple[str, ...]:
    """Of all their layers, each once."""
    return tuple(
        dict.fromkeys(
            chain for record in records for chain in chain_ids(tuple(layer.diff for layer in record.layers))
        )
    )
