"""What flota takes of a host's disk. Pure."""

from __future__ import annotations

from typing import Literal

from model.spec import Struct


class DiskUse(Struct):
    """What one kind of thing takes of a host's disk, in bytes."""

    kind: Literal["images", "containers", "volumes", "build cache"]
    total: int
    active: int
    """So many are in use."""
    size: int
    reclaimable: int


class HostDisk(Struct):
    """What flota has on a host's disk. `capacity` and `free` are of the file system that images lie on."""

    uses: tuple[DiskUse, ...]
    capacity: int
    free: int
    host: str = ""
