"""Content digests, `sha256:` and 64 lower-case hex digits (OCI image-spec, descriptor.md). Pure."""

from __future__ import annotations

import hashlib
import re

from model.errors import Damaged

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_ANY = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*:[0-9A-Za-z=_-]+\Z")


def is_digest(text: str) -> bool:
    return _DIGEST.match(text) is not None


def check(text: str, what: str = "digest") -> str:
    """`text`, or Damaged when it is no sha256 digest; a weaker one would prove nothing."""
    if is_digest(text):
        return text
    why = "only sha256 is supported" if _ANY.match(text) and not text.startswith("sha256:") else "malformed"
    raise Damaged(f"{what} {text[:80]!r}: {why}")


def of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def encoded(digest: str) -> str:
    """The hex digits; safe as a file name once `check` has passed."""
    return check(digest).removeprefix("sha256:")


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Chain id of each layer over those below it (OCI image-spec, config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(over(chain[-1] if chain else "", check(diff_id)))
    return tuple(chain)


def over(below: str, diff_id: str) -> str:
    """Chain id of a layer over the one with the chain id `below`; empty: over none."""
    return of(f"{below} {diff_id}".encode()) if below else diff_id
