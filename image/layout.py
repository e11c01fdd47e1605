"""Images as an archive: an OCI layout in a tar, and where they are images alone Docker's own in the same.

Invariants: equal images give equal bytes; a layer that is not what its digest says ends the archive.
Sources: OCI image-layout.md; moby image/spec v1.2 (manifest.json).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence

from msgspec.structs import replace

from aio.supervisor import in_thread
from image import indexes
from image.attestations import Attached
from image.digest import encoded, of
from image.manifest import OCI_INDEX
from image.reference import familiar, parse
from image.registry.source import Blob, Outgoing
from image.tarstream import Member
from image.tarwriter import END, header, padding
from model.errors import Damaged
from model.spec import Struct

PIECE = 1 << 20
REF_NAME, FULL_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
Named = tuple[Outgoing, tuple[str, ...]]
"""An image, and its full names."""


class Bundle(Struct):
    """An index with all that it names, under full names."""

    index: bytes
    images: tuple[Outgoing, ...]
    attached: tuple[Attached, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return of(self.index)

    def also(self, names: tuple[str, ...]) -> Bundle:
        """The same under more names."""
        return replace(self, names=tuple(dict.fromkeys((*self.names, *names))))


async def archive(
    images: Sequence[Named], bundles: Sequence[Bundle] = (), *, docker: bool = True
) -> AsyncIterator[bytes]:
    """A tar of an OCI layout, with each one's names; also Docker's own, which knows no index: of a bundle it
    has the image, unless there are several. Whoever reads it holds the layers."""
    written: set[str] = set()
    every = [*(image for image, _ in images), *(image for one in bundles for image in one.images)]
    for digest, data in _documents(every, bundles):
        if digest not in written:
            written.add(digest)
            yield _member(_place(digest), data)
    for blob in (blob for image in every for blob in image.layers):
        if blob.descriptor.digest in written:
            continue
        written.add(blob.descriptor.digest)
        async for piece in _layer(blob):
            yield piece
    yield _member("oci-layout", LAYOUT)
    yield _member("index.json", _index(images, bundles))
    single = [(one.images[0], one.names) for one in bundles if len(one.images) == 1]
    if docker and len(single) == len(bundles):
        yield _member("manifest.json", _docker([*images, *single]))
    yield END


def _documents(images: Sequence[Outgoing], bundles: Sequence[Bundle]) -> Iterator[tuple[str, bytes]]:
    for image in images:
        yield of(image.config), image.config
        yield of(image.manifest), image.manifest
    for bundle in bundles:
        for data in (document for one in bundle.attached for document in one.documents):
            yield of(data), data
        yield bundle.digest, bundle.index


async def _layer(blob: Blob) -> AsyncIterator[bytes]:
    """Raises Damaged once all of it has been given."""
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


def _index(images: Sequence[Named], bundles: Sequence[Bundle]) -> bytes:
    manifests = []
    for image, tags in images:
        manifests += _entries(image.media_type, image.manifest, tags)
    for bundle in bundles:
        manifests += _entries(indexes.media_type_of(bundle.index), bundle.index, bundle.names)
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def _entries(media_type: str, document: bytes, tags: tuple[str, ...]) -> list[dict[str, object]]:
    entry = {"mediaType": media_type, "digest": of(document), "size": len(document)}
    notes = [{FULL_NAME: tag, REF_NAME: parse(tag).tag} for tag in tags]
    return [{**entry, "annotations": note} for note in notes] or [entry]


def _docker(images: Sequence[Named]) -> bytes:
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
