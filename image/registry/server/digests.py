"""Digests of what the registry keeps: sha256 and sha512, the registered ones (OCI image-spec, descriptor.md,
"Registered Algorithms"). Pure.

Invariant: a digest that passed `is_digest` is an algorithm's name and lower-case hex digits, safe as the name
of a file.
"""

from __future__ import annotations

import hashlib
import re

SHA256, SHA512 = "sha256", "sha512"
DIGITS = {SHA256: 64, SHA512: 128}
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


def is_digest(text: str) -> bool:
    return _DIGEST.match(text) is not None


def algorithm(digest: str) -> str:
    return digest.partition(":")[0]


def of(data: bytes, algorithm: str = SHA256) -> str:
    return text(hashlib.new(algorithm, data))


def text(hasher: hashlib._Hash) -> str:
    return f"{hasher.name}:{hasher.hexdigest()}"
