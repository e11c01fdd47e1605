"""What a pushed manifest or index says: the blobs and manifests it holds, its subject. Pure.

Docker's image manifest v2 schema 2 and OCI image-spec 1.1, artifacts too. Its bytes are kept as they came.
Bounded (4 MiB); a document that is both an index and a manifest is refused (CVE-2021-41190).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from image.manifest import (
    ACCEPTED,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MAX_BLOB,
    MAX_DOCUMENT,
    OCI_INDEX,
    OCI_MANIFEST,
    load_object,
)
from image.refused import letting_go
from image.registry.server.digests import SHA256, is_digest, of
from image.registry.server.refusal import Refusal
from model.errors import Damaged
from model.spec import Struct

INDEXES = (OCI_INDEX, DOCKER_INDEX)


class Document(Struct):
    """`blobs` and `manifests` are digests that must be there; `artifact_type` is what referrers are filtered
    by (distribution-spec, "Listing Referrers")."""

    digest: str
    size: int
    media_type: str
    blobs: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    subject: str = ""
    artifact_type: str = ""
    annotations: Mapping[str, str] = {}

    @property
    def descriptor(self) -> dict[str, Any]:
        """Its entry in a list of referrers."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


@letting_go
def parse(data: bytes, content_type: str, algorithm: str = SHA256) -> Document:
    """Of a pushed document's bytes; its digest is of `algorithm`. Raises Refusal (MANIFEST_INVALID, 413)."""
    if len(data) > MAX_DOCUMENT:
        raise Refusal("MANIFEST_INVALID", f"a manifest has at most {MAX_DOCUMENT} bytes", status=413)
    said = content_type.partition(";")[0].strip()
    if said not in ACCEPTED:
        raise _invalid(f"the media type {said[:100]!r} is none of {', '.join(ACCEPTED)}")
    try:
        raw = load_object(data, "manifest")
    except Damaged as error:
        raise _invalid(error.message) from error
    _check_kind(raw, said)
    kind = _text(raw, "artifactType")
    manifests = [_digest(e, f"manifests[{i}]") for i, e in enumerate(_list(raw, "manifests"))]
    blobs: list[str] = []
    if said not in INDEXES:
        config = raw.get("config")
        blobs = [_digest(config, "config")]
        blobs += [_digest(e, f"layers[{i}]") for i, e in enumerate(_list(raw, "layers")) if not _elsewhere(e)]
        kind = kind or _text(config, "mediaType")
    return Document(
        digest=of(data, algorithm),
        size=len(data),
        media_type=said,
        blobs=tuple(dict.fromkeys(blobs)),
        manifests=tuple(dict.fromkeys(manifests)),
        subject=_digest(raw["subject"], "subject") if raw.get("subject") is not None else "",
        artifact_type=kind,
        annotations=_annotations(raw),
    )


def _check_kind(raw: Mapping[str, Any], said: str) -> None:
    own = raw.get("mediaType")
    if own is None and said in (DOCKER_MANIFEST, DOCKER_INDEX):
        raise _invalid("mediaType is missing")
    if own is not None and own != said:
        raise _invalid(f"mediaType is {str(own)[:100]!r}, the request's Content-Type {said!r}")
    if raw.get("schemaVersion") != 2 or isinstance(raw.get("schemaVersion"), bool):
        raise _invalid("schemaVersion is not 2")
    if "fsLayers" in raw or ("manifests" in raw and ("layers" in raw or "config" in raw)):
        raise _invalid("it is both an index and an image manifest")
    if said in (OCI_MANIFEST, DOCKER_MANIFEST) and "manifests" in raw:
        raise _invalid("it is an index")
    if said in INDEXES and "manifests" not in raw:
        raise _invalid("manifests is missing")


def _elsewhere(raw: Any) -> bool:
    """A layer that is to be fetched from its URLs (image-spec, "Non-Distributable Layers"): it need not be
    here."""
    return isinstance(raw, dict) and bool(raw.get("urls"))


def _digest(raw: Any, where: str) -> str:
    """Of a descriptor."""
    if not isinstance(raw, dict):
        raise _invalid(f"{where} is no descriptor")
    digest, size = raw.get("digest"), raw.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise _invalid(f"{where}.digest {str(digest)[:80]!r} is no sha256 or sha512 digest")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_BLOB:
        raise _invalid(f"{where}.size is {str(size)[:40]}")
    if not isinstance(raw.get("mediaType", ""), str):
        raise _invalid(f"{where}.mediaType is no text")
    return digest


def _annotations(raw: Mapping[str, Any]) -> dict[str, str]:
    found = raw.get("annotations")
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _invalid("annotations is no object of texts")
    return found


def _text(raw: Any, key: str) -> str:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise _invalid(f"{key} is no text")
    return value or ""


def _list(raw: Mapping[str, Any], key: str) -> list[Any]:
    value = raw.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _invalid(f"{key} is no list")
    return value


def _invalid(why: str) -> Refusal:
    return Refusal("MANIFEST_INVALID", f"the manifest can't be taken: {why}")
