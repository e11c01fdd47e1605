"""What a registry bears of its clients, and how long it keeps what nobody holds. Pure."""

from __future__ import annotations

from image.manifest import MAX_BLOB
from model.spec import Struct


class Limits(Struct):
    """Sizes in bytes, times in seconds."""

    blob: int = MAX_BLOB
    reserve: int = 1 << 30
    """Left free on the disk, which may be the controller's too; never more than a twentieth of it."""
    uploads: int = 1000
    """Sessions at a time."""
    uploads_each: int = 250
    """By one caller."""
    bodies: int = 128
    """Requests that send at a time."""
    bodies_each: int = 32
    """By one caller."""
    small: int = 256 << 10
    """Up to which a manifest is an ordinary one: real ones have some thousand bytes."""
    large: int = 8
    """Manifests beyond that which are in memory at a time; they are read one by one, each takes up to thirty
    times its size meanwhile."""
    idle: float = 3600.0
    """After which an upload that nobody goes on with is dropped."""
    age: float = 86400.0
    """After which any upload is."""
    silence: float = 30.0
    """Between two pieces of a body."""
    window: float = 60.0
    """In each of which a sender moves at least `slowest` bytes."""
    slowest: int = 64 << 10
    grace: float = 3600.0
    """How long a blob that no manifest holds is kept after it was pushed, mounted or asked for."""
    collect_every: float = 600.0
    tags: int = 10_000
    """Entries in one page of a list."""
    referrers: int = 1000
