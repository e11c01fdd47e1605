"""What hosts and their controller say of blobs that hosts give to each other: layers as they travel, by the
digest of their bytes. Pure.

Invariant: nothing here is proof of a blob's content; whoever gets it checks its digest.
"""

from __future__ import annotations

import base64
from typing import Literal

import msgspec

from model.errors import Forbidden
from model.ids import HostId
from model.spec import Struct

MAX_BLOBS = 20_000
"""Of one host, that its controller remembers; about 1.5 MB."""
MAX_WITHOUT = 1000
PREFIX = b"flota-peer-ticket-1\n"
"""Before what is signed: no certificate begins like that, which the same key signs."""


class BlobWord(Struct):
    """Of a blob that a host lacks or has just got. It is said anew while it holds.

    wanted: who has it? others may have from me what I have of it. fetching: I get it from outside. here: it
    is whole. given_up: I get it from nowhere.
    """

    digest: str
    state: Literal["wanted", "fetching", "here", "given_up"] = "wanted"
    without: tuple[HostId, ...] = ()
    """Hosts that gave nothing, or what was wrong."""
    image: str = ""
    """`repository@digest` of the image that it belongs to, if it is wanted for one that is named so."""
    record: bool = False
    """`digest` is no blob's but the key of a build's step: who has its result?"""


class BlobPeer(Struct):
    """A host that gives a blob: all of it, or what it has of it so far."""

    host: HostId
    address: str
    port: int
    whole: bool = False


class BlobPeers(Struct):
    peers: tuple[BlobPeer, ...] = ()
    outside: bool = False
    """None has it: get it from outside, for all."""
    ticket: str = ""
    """What peers want to see."""


class CopyImage(Struct):
    """To a host: get the image that `digest` means from those of `answer`, and call it `ref`."""

    ref: str
    digest: str
    answer: BlobPeers


class Ticket(Struct):
    """The controller says to peers: this host is of the fleet, by this certificate (SHA-256, hex)."""

    host: HostId
    certificate: str
    until: float
    """Unix seconds."""
    images: tuple[str, ...] = ()
    """Digests of images that it is to have, whether or not it has seen their manifests."""
    records: tuple[str, ...] = ()
    """Keys of builds' steps whose results it is to have."""


def write_ticket(ticket: Ticket, signature: bytes) -> str:
    """As it goes in a header."""
    parts = (msgspec.json.encode(ticket), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode("ascii") for part in parts)


def read_ticket(text: str) -> tuple[Ticket, bytes, bytes]:
    """(ticket, what is signed, signature); nothing is verified. Raises Forbidden."""
    body, _, signature = text.partition(".")
    try:
        data = base64.b64decode(body, altchars=b"-_", validate=True)
        signed = base64.b64decode(signature, altchars=b"-_", validate=True)
        return msgspec.json.decode(data, type=Ticket), to_sign(data), signed
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise Forbidden("the ticket can't be read") from error


def to_sign(body: bytes) -> bytes:
    return PREFIX + body
