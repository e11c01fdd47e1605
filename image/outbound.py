"""Images on their way out of a host: pushed to a registry, or saved into an archive.

Invariant: what is sent is held, so that nobody removes a layer under it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Sequence

from aio.supervisor import in_thread
from image import indexes
from image.base import OnProgress, PushWish
from image.blobs import BlobStore
from image.catalog import Catalog, Entry
from image.digest import encoded, of
from image.layers import LayerStore
from image.leases import Leases
from image.manifest import OCI_INDEX, Index, shown
from image.outgoing import blobs, outgoing
from image.platforms import parsed_platform
from image.reference import Reference, familiar, parse
from image.registry.source import IndexPush, Outgoing, Source
from image.tarstream import Member
from image.tarwriter import END, header, padding
from model.errors import Damaged, InvalidInput, NotFound
from model.image import Progress
from model.registries import Login

PIECE = 1 << 20
REF_NAME, FULL_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


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
    def _whole(self, entry: Entry) -> Sequence[Entry]:
        """The images of its index, where all of them are here as that one names them; else nothing."""
        if not entry.index:
            return ()
        here = {other.manifest: other for other in self._catalog.family(entry)}
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
        )
        return [await self._source.push_index(index, login, say), *digests], len(data)

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
        self, refs: Sequence[str], platform: str = "", names: Sequence[str] = ()
    ) -> AsyncIterator[bytes]:
        """A tar that is an OCI layout and a docker-archive in one, as `docker save` writes it. Fails before
        its first byte or not at all, but for a disk's fault."""
        entries = [(ref, self.found(ref, platform)) for ref in refs]
        with self._leases.hold(digest for _, entry in entries for digest in entry.needed):
            images = [
                (await in_thread(self._saved, ref, entry), _tags(ref, entry) or tuple(names))
                for ref, entry in entries
            ]
            async for piece in archive(images):
                yield piece

    def _saved(self, ref: str, entry: Entry) -> Outgoing:
        name = next(iter(_tags(ref, entry)), "") or f"saved:{entry.record.id[7:19]}"
        return self._prepare(name, entry)


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


async def archive(
    images: Sequence[tuple[Outgoing, tuple[str, ...]]], *, docker: bool = True
) -> AsyncIterator[bytes]:
    """A tar of an OCI layout, with each one's names; also Docker's own. Whoever reads it holds the layers."""
    written: set[str] = set()
    for image, _ in images:
        for digest, data in ((of(image.config), image.config), (of(image.manifest), image.manifest)):
            if digest not in written:
                written.add(digest)
                yield _member(_place(digest), data)
        for blob in image.layers:
            if blob.descriptor.digest in written:
                continue
            written.add(blob.descriptor.digest)
            yield _header(_place(blob.descriptor.digest), blob.descriptor.size)
            hasher = hashlib.sha256()
            with open(blob.path, "rb", buffering=0) as file:
                while piece := await in_thread(file.read, PIECE):
                    hasher.update(piece)
                    yield piece
            if hasher.hexdigest() != encoded(blob.descriptor.digest):
                raise Damaged(
                    f"layer {blob.descriptor.digest[:19]} does not match its digest any more",
                    hint="Pull or load its image again",
                )
            yield padding(blob.descriptor.size)
    yield _member("oci-layout", LAYOUT)
    yield _member("index.json", _index(images))
    if docker:
        yield _member("manifest.json", _docker(images))
    yield END


def _place(digest: str) -> str:
    return f"blobs/sha256/{encoded(digest)}"


def _member(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + padding(len(data))


def _header(name: str, size: int) -> bytes:
    """No owner and no time, so equal content gives equal bytes."""
    return header(
        Member(
            name=name.encode(), kind="file", mode=0o644, uid=0, gid=0, size=size, mtime_ns=0, link=b"",
            device=(0, 0), xattrs={}, regions=None,
        )
    )  # fmt: skip


def _index(images: Sequence[tuple[Outgoing, tuple[str, ...]]]) -> bytes:
    manifests = []
    for image, tags in images:
        entry = {
            "mediaType": image.media_type,
            "digest": of(image.manifest),
            "size": len(image.manifest),
        }
        notes = [{FULL_NAME: tag, REF_NAME: parse(tag).tag} for tag in tags]
        manifests += [{**entry, "annotations": note} for note in notes] or [entry]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def _docker(images: Sequence[tuple[Outgoing, tuple[str, ...]]]) -> bytes:
    by_config: dict[str, dict[str, object]] = {}
    for image, tags in images:
        digest = of(image.config)
        entry = by_config.setdefault(
            digest,
            {
                "Config": _place(digest),
                "RepoTags": [],
                "Layers": [_place(blob.descriptor.digest) for blob in image.layers],
            },
        )
        repo_tags = entry["RepoTags"]
        assert isinstance(repo_tags, list)
        repo_tags += [familiar(tag) for tag in tags]
    return json.dumps(list(by_config.values())).encode()
