"""Images on their way out of a host: pushed to a registry, or saved into an archive.

Invariant: what is sent is held, so that nobody removes a layer under it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from aio.supervisor import in_thread
from image import indexes
from image.attestations import Attached, abouts, gathered
from image.base import OnProgress, PushWish
from image.blobs import BlobStore
from image.catalog import Catalog, Entry
from image.digest import of
from image.layers import LayerStore
from image.layout import Bundle, Named, archive
from image.leases import Leases
from image.manifest import Descriptor, Index, shown
from image.outgoing import blobs, outgoing
from image.platforms import parsed_platform
from image.reference import Reference, familiar, parse
from image.registry.source import IndexPush, Outgoing, Source
from model.errors import InvalidInput, NotFound
from model.image import Progress
from model.registries import Login


class Outbound:
    def __init__(
        self, *, catalog: Catalog, configs: BlobStore, layers: LayerStore, source: Source, leases: Leases
    ) -> None:
        self._catalog = catalog
        self._configs = configs
        self._layers = layers
        self._source = source
        self._leases = leases

    async def push(self, ref: str, wish: PushWish, login: Login, say: OnProgress) -> tuple[Entry, str]:
        """The image, and the reference by digest under which the registry has it now."""
        reference = parse(ref)
        if reference.digest:
            raise InvalidInput(f"{ref}: a push goes to a tag, not to a digest")
        entry = self._of(self._named(reference.name), wish.platform)
        family = () if wish.platform else self._whole(entry)
        with self._leases.hold(digest for one in family or (entry,) for digest in one.needed):
            say(Progress(status=f"The push refers to repository [{reference.repository}]"))
            if family:
                digests, size = await self._push_index(reference, entry, family, login, say)
            else:
                sent = await in_thread(self._prepare, ref, entry)
                digests, size = [await self._source.push(sent, login, say)], len(sent.manifest)
        if wish.referrers:
            await self._push_referrers(reference, entry, digests, login, say)
        say(Progress(status=f"{reference.tag}: digest: {digests[0]} size: {size}"))
        return entry, f"{reference.repository}@{digests[0]}"

    def found(self, ref: str, platform: str) -> Entry:
        """As the catalog finds it, made for a platform. Raises NotFound."""
        return self._of(self._catalog.find(ref), platform)

    def _of(self, entry: Entry, platform: str) -> Entry:
        if not platform:
            return entry
        wanted = parsed_platform(platform)
        found = self._catalog.of_platform(entry, wanted)
        if found is None:
            have = ", ".join(shown(other.record.platform) for other in self._catalog.family(entry))
            name = familiar(entry.record.names[0]) if entry.record.names else entry.record.id[7:19]
            raise NotFound(
                f"{name} is not here for {shown(wanted)}, only for {have}",
                hint=f"Pull it: flota pull --platform {shown(wanted)}, or --all-platforms",
            )
        return found

    # -- indexes ------------------------------------------------------------------------------------
    def _whole(self, entry: Entry, *, nameless: bool = False) -> Sequence[Entry]:
        """The images of its index, where all of them are here as that one names them; else nothing.
        `nameless`: also those that share no name with it, as what is built for an archive alone has none."""
        if not entry.index:
            return ()
        every = self._catalog.entries.values() if nameless else self._catalog.family(entry)
        here = {other.manifest: other for other in every if other.index == entry.index}
        wanted = indexes.images_of(Index(manifests=indexes.members_of(entry.index)))
        if not all(member.digest in here for member in wanted):
            return ()
        return [here[member.digest] for member in wanted]

    async def _push_index(
        self, reference: Reference, entry: Entry, family: Sequence[Entry], login: Login, say: OnProgress
    ) -> tuple[list[str], int]:
        """Digests of the index and of its images, and the index's size."""
        sent = [
            await in_thread(self._prepare, f"{reference.repository}@{one.manifest}", one) for one in family
        ]
        digests = [await self._source.push(one, login, say) for one in sent]
        data = entry.index.encode()
        index = IndexPush(
            reference=reference,
            data=data,
            media_type=indexes.media_type_of(data),
            origins=_origins(entry, reference),
            attached=await in_thread(self._attached, entry),
        )
        return [await self._source.push_index(index, login, say), *digests], len(data)

    def _attached(self, entry: Entry) -> tuple[Attached, ...]:
        """The attestations that its index names and that are here."""
        if not entry.attached:
            return ()

        def get(descriptor: Descriptor) -> bytes:
            return self._configs.get(descriptor.digest)

        whose = abouts(indexes.members_of(entry.index)).items()
        found = [gathered(digest, about, get) for digest, about in whose if digest in entry.attached]
        return tuple(one for one in found if one is not None)

    async def _push_referrers(
        self, reference: Reference, entry: Entry, digests: Sequence[str], login: Login, say: OnProgress
    ) -> None:
        count = 0
        for origin in _origins(entry, reference):
            for digest in digests:
                count += await self._source.push_referrers(digest, origin, reference, login, say)
        say(Progress(status=f"Referrers copied: {count}"))

    def _named(self, name: str) -> Entry:
        with contextlib.suppress(NotFound):
            entry = self._catalog.find(name)
            if name in entry.record.names:
                return entry
        raise NotFound(
            f"an image does not exist locally with the tag: {familiar(name)}",
            hint="Tag one: flota tag IMAGE NAME",
        )

    def _prepare(self, ref: str, entry: Entry) -> Outgoing:
        config = self._configs.get(entry.record.id)
        manifest = b""
        with contextlib.suppress(NotFound):  # an older release that ran in between threw it away
            manifest = self._configs.get(entry.manifest) if entry.manifest else b""
        return outgoing(parse(ref), entry, config, manifest, blobs(entry, self._layers))

    # -- archives -----------------------------------------------------------------------------------
    async def save(
        self, refs: Sequence[str], platform: str = "", names: Sequence[str] = (), whole: bool = False
    ) -> AsyncIterator[bytes]:
        """A tar that is an OCI layout and a docker-archive in one, as `docker save` writes it. Fails before
        its first byte or not at all, but for a disk's fault."""
        entries = [(ref, self.found(ref, platform)) for ref in refs]
        families = {} if platform else {entry.record.id: self._bundled(entry, whole) for _, entry in entries}
        held = [one for family in families.values() for one in family] + [entry for _, entry in entries]
        with self._leases.hold(digest for entry in held for digest in entry.needed):
            images: list[Named] = []
            bundles: dict[str, Bundle] = {}
            for ref, entry in entries:
                tags = _tags(ref, entry) or tuple(names)
                image = await in_thread(self._saved, ref, entry)
                family = families.get(entry.record.id, ())
                found = [image, *[await in_thread(self._saved, "", one) for one in family[1:]]]
                bundle = await in_thread(self._bundle, entry, found, tags) if family else None
                if bundle is None:
                    images += [(one, tags) for one in found]
                else:
                    before = bundles.get(bundle.digest)
                    bundles[bundle.digest] = bundle if before is None else before.also(tags)
            async for piece in archive(images, tuple(bundles.values())):
                yield piece

    def _saved(self, ref: str, entry: Entry) -> Outgoing:
        name = next(iter(_tags(ref, entry)), "") or f"saved:{entry.record.id[7:19]}"
        return self._prepare(name, entry)

    def _bundled(self, entry: Entry, whole: bool) -> Sequence[Entry]:
        """With whom it goes into an archive by its index, itself first; nothing: alone."""
        family = self._whole(entry, nameless=whole)
        if len(family) > 1 and not whole:
            return ()
        return sorted(family, key=lambda one: one.record.id != entry.record.id)

    def _bundle(self, entry: Entry, images: Sequence[Outgoing], tags: tuple[str, ...]) -> Bundle | None:
        """None where a part of what the index names is not here, so that it would lead nowhere."""
        papers = self._attached(entry)
        here = {of(image.manifest) for image in images} | {one.digest for one in papers}
        if any(member.digest not in here for member in indexes.members_of(entry.index)):
            return None
        return Bundle(index=entry.index.encode(), images=tuple(images), attached=papers, names=tags)


def _origins(entry: Entry, target: Reference) -> tuple[Reference, ...]:
    """Other repositories that have had the image."""
    found = [parse(pinned) for pinned in entry.record.digests]
    return tuple(one for one in found if one.repository != target.repository)


def _tags(ref: str, entry: Entry) -> tuple[str, ...]:
    """The name that was asked for; none for an image asked for by its id."""
    try:
        name = parse(ref).name
    except InvalidInput:
        return ()
    return (name,) if name in entry.record.names else ()
