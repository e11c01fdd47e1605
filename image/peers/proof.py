"""How a host shows a peer that it may have an image's layers. Pure.

Whoever resolved an image at its registry, as whoever he is there, has seen its manifest; a digest, which is
written in many places, is not enough. The proof is bound to the host that shows it.
"""

from __future__ import annotations

import hashlib
import hmac

from image.digest import is_digest, of
from model.ids import HostId


def proof(manifest: bytes, host: HostId) -> str:
    """As it goes in a header: the manifest's digest, and a word that only who has its bytes can say."""
    return f"{of(manifest)} {_word(manifest, host)}"


def named(text: str) -> str:
    """The digest of the manifest that a proof is about; empty for what is no proof."""
    digest = text.partition(" ")[0]
    return digest if is_digest(digest) else ""


def holds(text: str, manifest: bytes, host: HostId) -> bool:
    """Whether this host has shown that it knows the manifest."""
    expected = proof(manifest, host)
    return hmac.compare_digest(text.encode(errors="replace"), expected.encode())


def _word(manifest: bytes, host: HostId) -> str:
    return hmac.new(manifest, f"flota-peer-proof/{host}".encode(), hashlib.sha256).hexdigest()
