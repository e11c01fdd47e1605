"""What a host's build cache holds, and what of it is to go. Pure."""

from __future__ import annotations

from typing import Literal

from model.spec import Struct

CacheKind = Literal["run", "copy", "workdir", "mount", "context"]
"""mount: a folder of RUN --mount=type=cache. context: files that clients have sent."""


class CacheEntry(Struct):
    """One step's result, or one folder that RUN steps share."""

    id: str
    kind: CacheKind = "run"
    source: str = ""
    """The instruction."""
    size: int = 0
    """Bytes on disk of its own layer."""
    created: float = 0.0
    used: float = 0.0
    """Unix seconds."""
    shared: bool = False
    """An image has the same layer: taking the entry away frees nothing."""
    in_use: bool = False
    """By a build that runs."""


class CachePrune(Struct):
    """What is to go: entries that fit all that is said."""

    all: bool = False
    """Also those whose layers images have."""
    unused_for: float = 0.0
    """Seconds since an entry was used."""
    keep: int = 0
    """Bytes that may stay, of those used last."""


class CacheFreed(Struct):
    entries: tuple[str, ...] = ()
    """Ids."""
    freed: int = 0
    """Bytes, about."""
    host: str = ""


class HostCache(Struct):
    """All of one host, those used last at the end."""

    entries: tuple[CacheEntry, ...] = ()
    host: str = ""


class CacheKeeping(Struct):
    """What each host keeps by itself of steps' results."""

    max_size: int = 20 << 30
    """Bytes; 0: no limit but the disk's."""
    max_age: float = 60 * 86400.0
    """Seconds since the last use; 0: no limit."""
    min_free: int = 0
    """Percent of the disk that stay free of it, as far as it goes; 0: it gives way with images alone."""
