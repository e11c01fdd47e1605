"""What is stated about an image, as documents that stand beside it in its index. Pure.

A predicate (how it was built, what is in it) becomes an in-toto statement about the image's manifest; the
statements of one image are the layers of a manifest for no platform, which tells in its annotations whom it
is about. Invariant: equal predicates of an equal image give equal bytes.
Sources: in-toto attestation spec v0.1, "Statement"; BuildKit, "Image attestation storage"; the package URL
specification, type `docker`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from image.digest import of
from image.indexes import linked
from image.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, load_object
from image.reference import Reference, familiar, parse
from image.refused import letting_go
from model.errors import Damaged, Exhausted, NotFound
from model.spec import Struct
from model.status import Platform

STATEMENT = "https://in-toto.io/Statement/v0.1"
IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
REFERENCE_TYPE, REFERENCE_DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"
MAX_STATEMENT = 16 << 20
"""Bytes of one."""
MAX_KEPT = 64 << 20
"""Bytes of all that are kept with one image."""


class Predicate(Struct):
    """`kind` is a type URI, `body` canonical JSON, of an object."""

    kind: str
    body: bytes


class Attached(Struct):
    """The documents of one image's attestations, as they are kept and sent. `about`: the digest of that
    image's manifest."""

    about: str
    manifest: bytes
    config: bytes
    statements: tuple[bytes, ...]

    @property
    def documents(self) -> tuple[bytes, ...]:
        """What is named before what names it."""
        return (*self.statements, self.config, self.manifest)

    @property
    def digest(self) -> str:
        return of(self.manifest)


def statement(predicate: Predicate, subjects: Sequence[Mapping[str, Any]]) -> bytes:
    """Raises Exhausted for one that nobody would read."""
    data = canonical(
        {
            "_type": STATEMENT,
            "predicateType": predicate.kind,
            "subject": list(subjects),
            "predicate": json.loads(predicate.body),
        }
    )
    if len(data) > MAX_STATEMENT:
        raise Exhausted(f"an attestation has {len(data)} bytes; {MAX_STATEMENT} are the most")
    return data


def subjects(digest: str, names: Sequence[str], platform: Platform) -> list[dict[str, Any]]:
    """The image's manifest, under each of its full names."""
    digests = {"sha256": digest.removeprefix("sha256:")}
    uris = [package_url(parse(name), platform) for name in names]
    return [{"name": uri, "digest": digests} for uri in uris or ["_"]]


def attached(
    about: str, predicates: Sequence[Predicate], names: Sequence[str], platform: Platform
) -> Attached:
    """`about`: the digest of the image's manifest."""
    whom = subjects(about, names, platform)
    statements = tuple(statement(predicate, whom) for predicate in predicates)
    config = canonical(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [of(data) for data in statements]},
        }
    )
    layers = [
        {
            "mediaType": IN_TOTO,
            "digest": of(data),
            "size": len(data),
            "annotations": {PREDICATE_TYPE: predicate.kind},
        }
        for data, predicate in zip(statements, predicates, strict=True)
    ]
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": of(config), "size": len(config)},
            "layers": layers,
        }
    )
    return Attached(about=about, manifest=manifest, config=config, statements=statements)


def described(one: Attached) -> dict[str, Any]:
    """Its entry in an index."""
    return {
        "mediaType": OCI_MANIFEST,
        "digest": one.digest,
        "size": len(one.manifest),
        "annotations": {REFERENCE_DIGEST: one.about, REFERENCE_TYPE: ATTESTATION},
        "platform": {"architecture": "unknown", "os": "unknown"},
    }


def abouts(members: Sequence[Descriptor]) -> dict[str, str]:
    """Of an index's entries those that are attestations: whom each is about, by its digest."""
    return {
        member.digest: member.annotations.get(REFERENCE_DIGEST, "")
        for member in members
        if member.annotations.get(REFERENCE_TYPE) == ATTESTATION
    }


def gathered(digest: str, about: str, get: Callable[[Descriptor], bytes]) -> Attached | None:
    """The documents of an attestation manifest; None where one is lacking, as `get` tells by NotFound. What
    it gives is verified. Raises Damaged for what is no such manifest, Exhausted for too much."""
    try:
        manifest = get(Descriptor(digest=digest, size=0, media_type=OCI_MANIFEST))
        found = linked(manifest, OCI_MANIFEST)
        if found.manifests or not found.blobs:
            raise Damaged(f"{digest[7:19]} is no manifest of attestations")
        if sum(blob.size for blob in found.blobs) > MAX_KEPT:
            raise Exhausted(f"the attestations {digest[7:19]} have more than {MAX_KEPT} bytes")
        *statements, config = (get(blob) for blob in found.blobs)
    except NotFound:
        return None
    return Attached(about=about, manifest=manifest, config=config, statements=tuple(statements))


def blobs_of(one: Attached) -> list[tuple[Descriptor, bytes]]:
    """As they are sent before the manifest."""
    found = {of(data): data for data in (*one.statements, one.config)}
    return [(Descriptor(digest=digest, size=len(data)), data) for digest, data in found.items()]


def package_url(reference: Reference, platform: Platform | None = None) -> str:
    """`pkg:docker/alpine@3.20?platform=linux%2Famd64`."""
    name = familiar(reference.repository)
    asked = {"digest": reference.digest if reference.tag else "", "platform": _shown(platform)}
    said = "&".join(f"{key}={quote(value, safe='')}" for key, value in asked.items() if value)
    version = quote(reference.tag or reference.digest, safe="")
    return f"pkg:docker/{quote(name, safe='/')}@{version}" + (f"?{said}" if said else "")


def canonical(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


@letting_go
def read(data: bytes) -> tuple[str, dict[str, Any]]:
    """A statement's predicate: its type, and itself. Raises Damaged."""
    raw = load_object(data, "attestation")
    kind, predicate = raw.get("predicateType"), raw.get("predicate")
    if not isinstance(kind, str) or not isinstance(predicate, dict):
        raise Damaged("the attestation has no predicate")
    return kind, predicate


def _shown(platform: Platform | None) -> str:
    if platform is None:
        return ""
    return "/".join(filter(None, (platform.os, platform.arch, platform.variant)))
