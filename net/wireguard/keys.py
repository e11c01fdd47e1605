"""Keys of Curve25519 (RFC 7748) as WireGuard writes them: 32 bytes in base64, private ones in a file of
root's."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aio.durable import write_file
from model.errors import CommandFailed

LENGTH = 32


class Unreadable(CommandFailed):
    """What is in the file may well be a key."""


def make(path: Path) -> str:
    """A new private key in `path` (mode 0600, whole or not at all); the public one. Raises OSError."""
    private = X25519PrivateKey.generate()
    write_file(path, base64.b64encode(private.private_bytes_raw()) + b"\n")
    return text_of(private.public_key().public_bytes_raw())


def read(path: Path) -> bytes:
    """The private key. Raises Unreadable, CommandFailed for what is none, without a byte of what was read."""
    try:
        raw = base64.b64decode(path.read_bytes().strip(), validate=True)
    except OSError as error:
        raise Unreadable(f"the key {path} cannot be read: {error.strerror}") from error
    except binascii.Error:
        raw = b""
    if len(raw) != LENGTH:
        raise CommandFailed(f"the key {path} is none", hint="Remove the file; the host makes another")
    return raw


def public(private: bytes) -> str:
    return text_of(X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


def bytes_of(key: str) -> bytes:
    """Of a public key in base64. Raises CommandFailed for what is none: it came from another host."""
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != LENGTH:
        raise CommandFailed(f"{key[:60]!r} is no WireGuard key")
    return raw
