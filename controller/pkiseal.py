"""Secrets that rest in the store, sealed under a key that does not: made of the key of the fleet's CA.

AES-256-GCM (NIST SP 800-38D) with a random nonce; what a secret is about is authenticated with it, so that
none can be put in another's place. The key is derived by HKDF (RFC 5869), so there is nothing else to back up
than the CA, without which the store is of no use anyway.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from model.errors import Damaged

NONCE = 12


def derived(secret: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret)


def seal(key: bytes, text: bytes, about: str) -> bytes:
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, text, about.encode())


def unseal(key: bytes, sealed: bytes, about: str) -> bytes:
    """Raises Damaged."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], about.encode())
    except (InvalidTag, ValueError):
        raise Damaged(
            f"{about} can't be opened: it was sealed under another key",
            hint="The store and the CA are of different backups; give it again",
        ) from None
