"""What the supervisor of a host's processes keeps running: one value, one file. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from model.codec import decode_json, encode_json
from model.spec import Struct

VERSION = "2"
"""Raise it with a change of the supervisor itself; what it keeps has versions of its own."""
FOLDER = "supervise"
"""Below the agent's run folder."""


class Child(Struct):
    """A process that is to be kept running."""

    argv: tuple[str, ...]
    """An absolute path first; empty: somebody else starts it, and again when it ends."""
    folder: str
    """Its place (`net.supervise.files`)."""
    version: str
    """One that runs with another is replaced."""
    log: str
    """File that takes what it says, or where else that is found."""


class Children(Struct):
    children: Mapping[str, Child] = {}
    """By name."""


def encode(state: Children) -> bytes:
    return encode_json(state)


def decode(data: bytes) -> Children:
    """Raises InvalidInput."""
    return decode_json(data, Children, "the supervisor's state")
