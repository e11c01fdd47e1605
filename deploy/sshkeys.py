"""Private keys of files as an SSH agent would have them: it lists them, and signs; nothing else.

`KeyAgent` is one connection, fed bytes and giving bytes; it does no IO. Invariant: a private key never leaves
it, and what is no question of the protocol ends the connection. Source: draft-ietf-sshm-ssh-agent.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import asyncssh

from model.errors import InvalidInput, NotFound

MAX_KEY = 1 << 20
MAX_MESSAGE = 1 << 18
"""Bytes, OpenSSH's limit."""
_FAILURE, _LIST, _LISTED, _SIGN, _SIGNED = 5, 11, 12, 13, 14
_RSA_SHA256, _RSA_SHA512 = 2, 4


def read_keys(paths: Sequence[str]) -> tuple[asyncssh.SSHKey, ...]:
    """Raises NotFound, InvalidInput."""
    return tuple(_key(path) for path in paths)


def _key(path: str) -> asyncssh.SSHKey:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KEY + 1)
        if len(data) > MAX_KEY:
            raise InvalidInput(f"{path} is too large for a key")
        return asyncssh.import_private_key(data)
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such file") from error
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}") from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, UnicodeDecodeError) as error:
        if "passphrase" not in str(error).lower():  # that is all by which asyncssh tells it apart
            raise InvalidInput(f"{path} is no private key of SSH") from error
        raise InvalidInput(
            f"the key {path} has a passphrase",
            hint="Give it to an agent by ssh-add, and name the agent's socket",
        ) from error


class KeyAgent:
    def __init__(self, keys: Sequence[asyncssh.SSHKey]) -> None:
        self._keys = {key.public_data: key for key in keys}
        self._waiting = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Answers to what came whole. Raises InvalidInput where it is no agent's protocol."""
        self._waiting += data
        answers = bytearray()
        while len(self._waiting) >= 4:
            (size,) = struct.unpack_from(">I", self._waiting)
            if not 0 < size <= MAX_MESSAGE:
                raise InvalidInput(f"a question of {size} bytes to an SSH agent")
            if len(self._waiting) < 4 + size:
                break
            message = bytes(self._waiting[4 : 4 + size])
            del self._waiting[: 4 + size]
            answers += _string(self._answer(message[0], message[1:]))
        return bytes(answers)

    def _answer(self, kind: int, body: bytes) -> bytes:
        if kind == _LIST:
            listed = b"".join(_string(blob) + _string(b"") for blob in self._keys)
            return bytes([_LISTED]) + struct.pack(">I", len(self._keys)) + listed
        signature = self._signature(body) if kind == _SIGN else b""
        return bytes([_SIGNED]) + _string(signature) if signature else bytes([_FAILURE])

    def _signature(self, body: bytes) -> bytes:
        """Empty: there is none."""
        try:
            blob, rest = _cut(body)
            data, rest = _cut(rest)
            (flags,) = struct.unpack(">I", rest)
        except (struct.error, ValueError):
            return b""
        key = self._keys.get(blob)
        if key is None:
            return b""
        algorithm = key.algorithm
        if algorithm == b"ssh-rsa" and flags & (_RSA_SHA256 | _RSA_SHA512):
            algorithm = b"rsa-sha2-512" if flags & _RSA_SHA512 else b"rsa-sha2-256"
        return key.sign(data, algorithm)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """A string, and what follows. Raises ValueError, struct.error."""
    (size,) = struct.unpack_from(">I", data)
    if len(data) < 4 + size:
        raise ValueError("cut short")
    return data[4 : 4 + size], data[4 + size :]
