"""A backup under a passphrase: nobody reads or changes it without.

scrypt (RFC 7914) makes a key of the passphrase; AES-256-GCM seals the archive in chunks, each with its number
and whether it is the last in its nonce (the STREAM construction, Hoang et al. 2015), and the header as data
that is vouched for. So chunks can't be changed, dropped, doubled, put in another order, or cut off.

    magic 16 | log2 N 1 | r 1 | p 1 | salt 16 | nonce prefix 7 | chunks: 64 KiB and a tag of 16 bytes
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from model.errors import Damaged, InvalidInput, Unauthenticated

MAGIC = b"flota-sealed-1\r\n"
CHUNK, TAG, SALT, PREFIX = 1 << 16, 16, 16, 7
HEADER = len(MAGIC) + 3 + SALT + PREFIX
COST = (17, 8, 1)
"""log2 N, r, p: 128 MiB and some tenths of a second (OWASP's choice of 2023)."""
MOST_COST = (20, 16, 4)
"""Beyond these a file would have us spend memory or time that nobody asked for."""
LEAST_PASSPHRASE = 8


def sealed(data: bytes) -> bool:
    return data.startswith(MAGIC)


def seal(data: bytes, passphrase: bytes, cost: tuple[int, int, int] = COST) -> bytes:
    """Raises InvalidInput for a passphrase that is too short."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise InvalidInput(f"the passphrase has fewer than {LEAST_PASSPHRASE} bytes", hint="Use a longer one")
    header = MAGIC + bytes(cost) + os.urandom(SALT + PREFIX)
    cipher = AESGCM(_key(header, passphrase))
    out = bytearray(header)
    for nonce, part in _numbered(header, data, CHUNK):
        out += cipher.encrypt(nonce, part, header)
    return bytes(out)


def unseal(data: bytes, passphrase: bytes, name: str = "the backup") -> bytes:
    """Raises Damaged, Unauthenticated for another passphrase."""
    header = data[:HEADER]
    cost = tuple(header[len(MAGIC) : len(MAGIC) + 3])
    if not sealed(data) or len(header) < HEADER or len(data) < HEADER + TAG:
        raise Damaged(f"{name} is cut off")
    if not all(1 <= value <= most for value, most in zip(cost, MOST_COST, strict=True)):
        raise Damaged(f"{name}: its seal asks for too much work (scrypt {cost})")
    cipher = AESGCM(_key(header, passphrase))
    out = bytearray()
    for nonce, part in _numbered(header, data[HEADER:], CHUNK + TAG):
        try:
            out += cipher.decrypt(nonce, part, header)
        except InvalidTag as error:
            if out:
                raise Damaged(f"{name} was changed or cut off after {len(out)} bytes") from error
            raise Unauthenticated(
                f"{name} doesn't open with this passphrase", hint="It may also have been changed"
            ) from error
    return bytes(out)


def _key(header: bytes, passphrase: bytes) -> bytes:
    cost, r, p = header[len(MAGIC) : len(MAGIC) + 3]
    salt = header[len(MAGIC) + 3 : len(MAGIC) + 3 + SALT]
    return Scrypt(salt=salt, length=32, n=1 << cost, r=r, p=p).derive(passphrase)


def _numbered(header: bytes, data: bytes, size: int) -> Iterator[tuple[bytes, bytes]]:
    """(nonce, part) of each chunk; of nothing there is one, empty and last."""
    count = max(1, -(-len(data) // size))
    for number in range(count):
        last = number == count - 1
        nonce = header[-PREFIX:] + number.to_bytes(4, "big") + bytes([last])
        yield nonce, data[number * size : (number + 1) * size]
