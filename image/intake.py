"""How images come into a host's store: pulled, loaded, imported, made of containers, built.

Invariant: of a transfer that fails nothing stays that nobody else holds.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from aio.supervisor import in_thread
from image import attestations, config_blob, indexes
from image import changes as instructions
from image.additions import Additions
from image.archive import Archive
from image.archivelayers import unpack_all
from image.attestations import Predicate
from image.base import Built, FindLogin, OnProgress, PullPolicy, silent
from image.catalog import Entry
from image.commit import Commit, committed
from image.digest import chain_ids, of
from image.flights import Flights
from image.full import told_when_full
from image.incoming import Incoming, entry_of
from image.indexes import described
from image.indexpull import IndexPull
from image.manifest import MAX_LAYERS, Configuration, Index, parse_configuration, shown
from image.outgoing import blobs, manifest_of
from image.platforms import fits, host_platform, wanted_platform
from image.pull import Downloads, LayerPull
from image.reference import Reference, familiar, parse
from image.registry.source import Remote, Source
from image.removal import Parts, named
from image.spool import spool
from image.trash import Trash
from model.errors import NotFound, Unsupported
from model.image import HistoryEntry, ImageConfig, ImageRecord, Progress
from model.registries import Login
from model.status import Platform

MAX_ARCHIVE = 1 << 40


class Intake:
    """`tmp` is for transfers; `collect_soon` has what nobody needs taken away."""

    def __init__(
        self,
        parts: Parts,
        additions: Additions,
        *,
        source: Source,
        tmp: Path,
        trash: Trash,
        pulls: Flights[ImageRecord],
        collect_soon: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._additions = additions
        self._source = source
        self._tmp = tmp
        self._trash = trash
        self._pulls = pulls
        self._collect_soon = collect_soon
        self._platform = host_platform()

    async def ensure(
        self, ref: str, policy: PullPolicy, platform: str, login: FindLogin, say: OnProgress
    ) -> ImageRecord:
        """As `Images.ensure`; so are the others."""
        wanted = wanted_platform(platform, self._platform)
        try:
            entry = self._parts.catalog.find(ref)
            record = (self._parts.catalog.of_platform(entry, wanted) or entry).record
        except NotFound:
            if policy == "never":
                raise
            record = await self.pull(ref, platform, say, await login(ref))
        else:
            by_id = not named(ref, record) and "@" not in ref
            other = bool(platform) and not fits(record.platform, wanted)
            if not by_id and (policy == "always" or (policy == "missing" and other)):
                record = await self.pull(ref, platform, say, await login(ref))
        if not fits(record.platform, wanted):
            raise Unsupported(
                f"image {familiar(ref)} is made for {shown(record.platform)}, not {shown(wanted)}"
            )
        return record

    async def pull(self, ref: str, platform: str, say: OnProgress, login: Login) -> ImageRecord:
        reference = parse(ref)
        wanted = wanted_platform(platform, self._platform)

        async def work(say: OnProgress) -> ImageRecord:
            return await self._pull(reference, wanted, login, say)

        key = f"pull {reference.name} {reference.digest} {wanted.os}/{wanted.arch}/{wanted.variant}"
        if login:
            key += f" {hash(login):x}"  # another's refusal is not ours
        return await self._pulls.join(key, work, say)

    async def _pull(
        self, reference: Reference, wanted: Platform, login: Login, say: OnProgress
    ) -> ImageRecord:
        say(Progress(status=f"Pulling from {reference.repository}"))
        remote = await self._source.resolve(reference, wanted, login)
        chains = chain_ids(remote.parsed.diff_ids)
        with self._parts.layers.hold(chains), self._collected_on_failure():
            await LayerPull(self._source, self._parts.layers, self._tmp, say).run(remote)
            names = () if reference.digest else (reference.name,)
            image = Incoming(
                config=remote.config,
                parsed=remote.parsed,
                names=names,
                digests=tuple(filter(None, (remote.pinned,))),
                manifest=remote.manifest,
            )
            return (await self._additions.add([image]))[0]

    async def bring(self, remote: Remote, source: Downloads | None = None) -> None:
        """Its layers, and no image."""
        with self._parts.layers.hold(chain_ids(remote.parsed.diff_ids)), self._collected_on_failure():
            await LayerPull(source or self._source, self._parts.layers, self._tmp, silent).run(remote)

    async def pull_all(self, ref: str, say: OnProgress, login: Login) -> Sequence[ImageRecord]:
        reference = parse(ref)
        document = await self._source.document(reference, login, near=True)
        if not isinstance(document.parsed, Index):
            return [await self.pull(ref, "", say, login)]
        pull = IndexPull(self._source, self._parts.layers, self._tmp, say)
        with pull.holding(), self._collected_on_failure():
            return await self._additions.add(await pull.run(reference, document, document.parsed, login))

    async def load(
        self, chunks: AsyncIterator[bytes], platform: str, say: OnProgress
    ) -> Sequence[ImageRecord]:
        wanted = wanted_platform(platform, self._platform)
        async with spool(chunks, self._tmp, limit=MAX_ARCHIVE) as spooled:
            folder = self._tmp / f"load-{secrets.token_hex(8)}"
            try:  # named before it is made: whoever is cut short while it is made takes it away
                await in_thread(folder.mkdir, 0o700)
                archive = Archive(folder)
                await in_thread(archive.extract, spooled, MAX_ARCHIVE)
                found = await in_thread(archive.images, wanted)
                held = [chain for image in found for chain in chain_ids(image.parsed.diff_ids)]
                with self._parts.layers.hold(held), self._collected_on_failure():
                    for image in found:
                        await unpack_all(self._parts.layers, image, say)
                    incoming = [
                        Incoming(config=f.config, parsed=f.parsed, names=f.names, manifest=f.manifest)
                        for f in found
                    ]
                    await self._parts.layers.flushed(held)
                    added = await self._additions.add(incoming)
                return [
                    msgspec.structs.replace(one, names=f.names) for one, f in zip(added, found, strict=True)
                ]
            finally:
                self._trash.put(folder)
                self._trash.wake()

    async def import_tar(
        self,
        chunks: AsyncIterator[bytes],
        ref: str,
        message: str,
        changes: Sequence[str],
        platform: str,
    ) -> ImageRecord:
        config = instructions.apply(ImageConfig(), changes)
        names = (parse(ref).name,) if ref else ()
        async with (
            spool(chunks, self._tmp, limit=MAX_ARCHIVE) as spooled,
            self._parts.layers.root_layer(spooled) as layer,
        ):
            parsed = Configuration(
                platform=wanted_platform(platform, self._platform),
                diff_ids=(layer.diff,),
                config=config,
                history=(HistoryEntry(created_by="flota import", comment=message),),
            )
            image = Incoming(config=config_blob.encode(parsed), parsed=parsed, names=names)
            with self._collected_on_failure():
                return (await self._additions.add([image]))[0]

    async def commit(self, container: str, wish: Commit) -> ImageRecord:
        image, chains = self._parts.roots.of(container)
        names = (parse(wish.ref).name,) if wish.ref else ()
        if len(chains) >= MAX_LAYERS:
            raise Unsupported(f"its image has {len(chains)} layers already, and there can be {MAX_LAYERS}")
        base = parse_configuration(await in_thread(self._parts.configs.get, image))
        changed = msgspec.structs.replace(self._parts.roots.changed(container)[0], quiet=wish.quiet)
        with (
            self._parts.layers.hold(chains),
            self._collected_on_failure(),
            self._parts.roots.there(container),
        ):
            async with self._parts.layers.changed(changed, chains) as layer:
                self._parts.roots.of(container)  # removed meanwhile, anything may have been missing
                parsed = committed(base, wish, layer.diff)
                made = Incoming(config=config_blob.encode(parsed), parsed=parsed, names=names)
                await self._parts.layers.flushed(chains)
                return (await self._additions.add([made]))[0]

    async def add_built(
        self,
        made: Sequence[Configuration],
        names: Sequence[str],
        stated: Sequence[Sequence[Predicate]] = (),
    ) -> Built:
        incoming = await in_thread(self._built, made, tuple(names), stated)
        digests = tuple(of(image.manifest) if image.manifest else "" for image in incoming)
        digest = of(incoming[0].index.encode()) if incoming[0].index else digests[0]
        known = [self._parts.catalog.entries.get(of(image.config)) for image in incoming]
        if not all(map(_is_there, known, incoming)):
            with told_when_full("the image"):
                for parsed in made:
                    await self._parts.layers.flushed(chain_ids(parsed.diff_ids))
                images = await self._additions.add(incoming)
        else:  # all of it came from the cache
            images = [entry.record for entry in known if entry is not None]
        return Built(images=tuple(images), digests=digests, digest=digest)

    def _built(
        self, made: Sequence[Configuration], names: tuple[str, ...], stated: Sequence[Sequence[Predicate]]
    ) -> list[Incoming]:
        """With manifests, and an index where there are several, or attestations."""
        found: list[Incoming] = []
        layers = self._parts.layers
        for parsed in made:
            image = Incoming(config=config_blob.encode(parsed), parsed=parsed, names=names)
            try:
                kept = blobs(entry_of(image, None, layers.get), layers)
            except NotFound:  # its base is of an older release: it can run here, and not be sent
                if len(made) > 1 or any(stated):
                    raise
                return [image]
            found.append(msgspec.structs.replace(image, manifest=manifest_of(image.config, kept)))
        papers = [
            attestations.attached(of(image.manifest), some, names, image.parsed.platform)
            for image, some in zip(found, stated, strict=False)
            if some
        ]
        if len(found) == 1 and not papers:
            return found
        entries = [described(image.manifest, image.parsed.platform) for image in found]
        entries += map(attestations.described, papers)
        text = indexes.made(entries).decode()
        documents = tuple(document for one in papers for document in one.documents)
        return [msgspec.structs.replace(image, index=text, attached=documents) for image in found]

    @contextlib.contextmanager
    def _collected_on_failure(self) -> Iterator[None]:
        """What a failed transfer unpacked goes when nobody else holds it."""
        try:
            with told_when_full("the image"):
                yield
        except BaseException:
            self._collect_soon()
            raise


def _is_there(entry: Entry | None, image: Incoming) -> bool:
    """Whether the catalog says all of it already."""
    manifest = of(image.manifest) if image.manifest else ""
    if entry is None or (entry.manifest, entry.index) != (manifest, image.index):
        return False
    return set(image.names) <= set(entry.record.names)
