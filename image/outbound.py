"""Images on their way out of a host: pushed to a registry, or saved into an archive.

Invariant: what is sent is held, so that nobody removes a layer under it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Sequence

from aio.supervisor import in_thread
from image.base import OnProgress
from image.blobs import BlobStore
from image.catalog import Catalog, Entry
from image.digest import encoded, of
from image.layers import LayerStore
from image.leases import Leases
from image.manifest import OCI_INDEX
from image.outgoing import blobs, outgoing
from image.reference import familiar, parse
from image.registry.source import Outgoing, Source
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

    async def push(self, ref: str, login: Login, say: OnProgress) -> tuple[Entry, str]:
        """The image, and the reference by digest under which the registry has it now."""
        reference = parse(ref)
        if reference.digest:
            raise InvalidInput(f"{ref}: a push goes to a tag, not to a digest")
        entry = self._named(reference.name)
        with self._leases.hold((*entry.documents, *entry.chains)):
            sent = await in_thread(self._prepare, ref, entry)
            say(Progress(status=f"The push refers to repository [{reference.repository}]"))
            digest = await self._source.push(sent, login, say)
        size = len(sent.manifest)
        say(Progress(status=f"{reference.tag}: digest: {digest} size: {size}"))
        return entry, f"{reference.repository}@{digest}"

    def _named(self, name: str) -> Entry:
        for entry in self._catalog.entries.values():
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
    async def save(self, refs: Sequence[str]) -> AsyncIterator[bytes]:
        """A tar that is an OCI layout and a docker-archive in one, as `docker save` writes it. Fails before
        its first byte or not at all, but for a disk's fault."""
        entries = [(ref, self._catalog.find(ref)) for ref in refs]
        used = [digest for _, entry in entries for digest in (*entry.documents, *entry.chains)]
        with self._leases.hold(used):
            images = [(await in_thread(self._saved, ref, entry), _tags(ref, entry)) for ref, entry in entries]
            async for piece in _archive(images):
                yield piece

    def _saved(self, ref: str, entry: Entry) -> Outgoing:
        name = next(iter(_tags(ref, entry)), "") or f"saved:{entry.record.id[7:19]}"
        return self._prepare(name, entry)


def _tags(ref: str, entry: Entry) -> tuple[str, ...]:
    """The name that was asked for; none for an image asked for by its id."""
    try:
        name = parse(ref).name
    except InvalidInput:
        return ()
    return (name,) if name in entry.record.names else ()


async def _archive(images: Sequence[tuple[Outgoing, tuple[str, ...]]]) -> AsyncIterator[bytes]:
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
