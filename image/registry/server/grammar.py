"""What a request's path means: the end points of the distribution specification ("Endpoints"). Pure.

Invariant: a repository's name, a tag, a digest or an upload's id that left here matches its grammar whole, so
it holds no `..`, no empty part and nothing that a file system or a header takes for more than a name.
"""

from __future__ import annotations

import re
from typing import Literal

from image.registry.server.digests import is_digest
from image.registry.server.refusal import Refusal
from model.errors import InvalidInput
from model.spec import Struct

MAX_NAME = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")

Kind = Literal["base", "catalog", "blob", "uploads", "upload", "manifest", "tags", "referrers"]
METHODS: dict[Kind, tuple[str, ...]] = {
    "base": ("GET", "HEAD"),
    "catalog": ("GET",),
    "blob": ("GET", "HEAD", "DELETE"),
    "uploads": ("POST",),
    "upload": ("GET", "PATCH", "PUT", "DELETE"),
    "manifest": ("GET", "HEAD", "PUT", "DELETE"),
    "tags": ("GET",),
    "referrers": ("GET",),
}
"""What may be asked of each."""


class Target(Struct):
    """`reference` is a digest (blob, referrers, manifest), a tag (manifest), or an upload's id."""

    kind: Kind
    name: str = ""
    reference: str = ""

    @property
    def by_digest(self) -> bool:
        return is_digest(self.reference)


def parse(path: str) -> Target:
    """Of a path, percent-decoded, without its query. Raises Refusal."""
    if path in ("/v2", "/v2/"):
        return Target(kind="base")
    if path == "/v2/_catalog":
        return Target(kind="catalog")
    if not path.startswith("/v2/"):
        raise Refusal("UNSUPPORTED", "no such end point", status=404, hint="A registry's begin with /v2/")
    parts = path.removeprefix("/v2/").split("/")
    kind, name, reference = _split(parts)
    check_name(name)
    if kind in ("blob", "referrers"):
        check_digest(reference)
    if kind == "upload" and not _UPLOAD.match(reference):
        raise Refusal("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
    return Target(kind=kind, name=name, reference=reference)


def _split(parts: list[str]) -> tuple[Kind, str, str]:
    """Read from its end: a repository may have any of the words in its name."""
    match parts:
        case [*name, "blobs", "uploads", ""] | [*name, "blobs", "uploads"]:
            return "uploads", "/".join(name), ""
        case [*name, "blobs", "uploads", ident]:
            return "upload", "/".join(name), ident
        case [*name, "blobs", digest]:
            return "blob", "/".join(name), digest
        case [*name, "manifests", reference]:
            return "manifest", "/".join(name), reference
        case [*name, "tags", "list"]:
            return "tags", "/".join(name), ""
        case [*name, "referrers", digest]:
            return "referrers", "/".join(name), digest
    raise Refusal("UNSUPPORTED", "no such end point", status=404)


def is_name(name: str) -> bool:
    return len(name) <= MAX_NAME and _NAME.match(name) is not None


def check_name(name: str) -> str:
    if not is_name(name):
        lower = "; names are lower case" if name != name.lower() else ""
        raise Refusal("NAME_INVALID", f"{name[:80]!r} is no repository's name{lower}")
    return name


def check_digest(digest: str) -> str:
    if not is_digest(digest):
        raise Refusal("DIGEST_INVALID", f"{digest[:80]!r} is no sha256 or sha512 digest")
    return digest


def is_tag(tag: str) -> bool:
    return _TAG.match(tag) is not None


def manifest_of(text: str, host: str = "") -> Target:
    """What people write: `NAME:TAG` or `NAME@DIGEST`, the registry's own `host` may stand before it. Raises
    InvalidInput."""
    bare = text.removeprefix(f"{host}/") if host else text
    name, at, reference = bare.partition("@")
    if not at:
        name, _, reference = bare.rpartition(":")
    if not is_name(name) or not (is_digest(reference) if at else is_tag(reference)):
        raise InvalidInput(
            f"{text[:120]!r} names no tag and no manifest of the fleet's registry",
            hint="Write REPOSITORY:TAG or REPOSITORY@DIGEST",
        )
    return Target(kind="manifest", name=name, reference=reference)
