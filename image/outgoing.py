"""An image as others get it: its own manifest where every layer still is as that one names it, else a new one
over the layers that are kept. Pure but for the first bytes of each layer.

Invariant: what leaves under a manifest's digest is what came under it, annotations and all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from image.catalog import Entry
from image.digest import of
from image.layers import LayerStore
from image.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, parse_document
from image.packed import media_type_of
from image.reference import Reference, familiar
from image.registry.source import Blob, Outgoing
from model.errors import NotFound


def blobs(entry: Entry, layers: LayerStore) -> tuple[Blob, ...]:
    """Its layers as they travel, bottom first. Raises NotFound when one is kept unpacked only."""
    found = []
    for chain in entry.chains:
        kept = layers.blob(chain)
        if kept is None:
            name = familiar(entry.record.names[0]) if entry.record.names else entry.record.id[7:19]
            raise NotFound(
                f"layer {chain[7:19]} of {name} was unpacked by an older release, which kept no copy to send",
                hint="Pull or load the image again",
            )
        packed, path = kept
        with open(path, "rb") as file:
            media_type = media_type_of(file.read(6))
        descriptor = Descriptor(digest=packed.digest, size=packed.size, media_type=media_type)
        found.append(Blob(descriptor=descriptor, path=path))
    return tuple(found)


def outgoing(
    reference: Reference, entry: Entry, config: bytes, manifest: bytes, kept: Sequence[Blob]
) -> Outgoing:
    """`manifest` is the one that the image came with; empty: none."""
    own = _names_these(manifest, kept)
    data = manifest if own else manifest_of(config, kept)
    return Outgoing(
        reference=reference,
        manifest=data,
        media_type=own or OCI_MANIFEST,
        config=config,
        layers=tuple(kept),
        mounts=_mounts(reference, entry),
    )


def _names_these(manifest: bytes, kept: Sequence[Blob]) -> str:
    """The manifest's media type if it is one of these very layers; else empty."""
    if not manifest:
        return ""
    parsed = parse_document(manifest)
    if not isinstance(parsed, Manifest):
        return ""
    same = [layer.digest for layer in parsed.layers] == [blob.descriptor.digest for blob in kept]
    return (parsed.media_type or OCI_MANIFEST) if same else ""


def manifest_of(config: bytes, kept: Sequence[Blob]) -> bytes:
    """A manifest of our own. Canonical: equal images give equal digests."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": of(config), "size": len(config)},
        "layers": [
            {
                "mediaType": blob.descriptor.media_type,
                "digest": blob.descriptor.digest,
                "size": blob.descriptor.size,
            }
            for blob in kept
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _mounts(reference: Reference, entry: Entry) -> tuple[str, ...]:
    """Repositories of the same registry that it was pulled from or pushed to."""
    found = []
    for pinned in entry.record.digests:
        repository = pinned.partition("@")[0]
        host, _, path = repository.partition("/")
        if host == reference.host and path != reference.path:
            found.append(path)
    return tuple(dict.fromkeys(found))
